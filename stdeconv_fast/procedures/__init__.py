"""How the steps are combined: passes of attention and solve, and the choice of the smoothing."""
