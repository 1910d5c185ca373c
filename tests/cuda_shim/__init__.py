"""Runs the CUDA sources on the CPU: threads of a block are fibres, a strict stand-in takes CuPy's place."""
