"""Where a run changes its ways or warns: read by the run, and by what judges it afterwards without running anything."""

STRONG_PLATFORM = 1.0  # log2 sd from which gene effects are fitted jointly, weights and library sizes not trusted
BORDERLINE = 0.2  # a log2 sd so near to that is told
UNRELATED = 0.3  # correlation of genes below which a reference foretells nothing
FEWEST_COUNTS = 50.0  # with fewer counts in the median spot nothing is said of a missing type
