"""The CUDA twins of the compiled inner loops: sources (.cu) and the loader that builds and launches them."""
