"""The steps of a run; none imports another."""
