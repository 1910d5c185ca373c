"""One page that shows an answer: read, packed, written as a single html file."""
