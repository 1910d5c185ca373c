"""The compiled inner loops; installed and imported as `stdeconv_fast.kernels`."""

if __name__ == "kernels":
    raise ImportError("import stdeconv_fast.kernels, not the repository folder kernels/")
