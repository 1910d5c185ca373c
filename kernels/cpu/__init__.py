"""Kernels for the CPU: serial numba functions over a range of spots, edges or cells, which release the GIL."""
