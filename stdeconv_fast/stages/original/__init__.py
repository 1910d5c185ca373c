"""The stages of ``objective="original"``: what the original program computes, at scale."""
