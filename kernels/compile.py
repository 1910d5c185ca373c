"""How kernels are compiled: numba's options and the guard around its cache on disk, decided once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable | None = None, /, **options: Any) -> Callable:
    """Compile a function with numba, release the GIL in it, and keep the machine code on disk.

    Use it as ``@kernel`` or as ``@kernel(fastmath=True)``. The function is compiled at its first call for each
    combination of argument types, never at import.

    Parameters
    ----------
    function : callable, optional
        The function, where the decorator stands without parentheses.
    **options
        Options of `numba.njit`; they replace the defaults ``nogil=True, error_model="numpy"`` (a division by zero
        gives inf or nan as in NumPy, and costs no check).

    Returns
    -------
    callable
        The compiled function, or the decorator that makes it.

    Raises
    ------
    RuntimeError
        numba refuses its cache for another reason than a lack of a writable folder.

    Notes
    -----
    Where neither the package's folder nor the user's cache folder can be written, numba raises "no locator
    available" at import; the kernel is then compiled anew in each process instead. NUMBA_CACHE_DIR=FOLDER helps.

    The cache notices an edit of the kernel's own file only. A kernel and the compiled helpers that it calls
    therefore live in one file.

    A helper that adds up floats in an order of the compiler's choice (``fastmath``) is given ``inline="always"``:
    else each kernel that calls it brings a copy of its own, and which one a process uses, and so the last bits, hangs
    on whether the kernels were compiled in it or read from disk.
    """
    settings = {"nogil": True, "error_model": "numpy", **options}

    def compiled(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **settings)(function)
        except RuntimeError as error:
            if "no locator" not in str(error):
                raise
            return numba.njit(**settings)(function)

    return compiled if function is None else compiled(function)
