"""How kernels are compiled: numba's options and the guard around its cache on disk, decided once."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from numba.core.sigutils import normalize_signature


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
    A disk that fills up later, a cache file that is damaged or may not be read, and processes that write the same
    cache at once cost a compilation, never the run (see `guard`).

    The machine code holds that of the compiled helpers that the kernel calls: an edit of a file that one of them comes
    from counts as one of the kernel's own (numba looks at no other file than that).

    A helper that adds up floats in an order of the compiler's choice (``fastmath``) is given ``inline="always"``:
    else each kernel that calls it brings a copy of its own, and which one a process uses, and so the last bits, hangs
    on whether the kernels were compiled in it or read from disk.
    """
    settings = {"nogil": True, "error_model": "numpy", **options}

    def compiled(function: Callable) -> Callable:
        try:
            return guard(numba.njit(cache=True, **settings)(function))
        except RuntimeError as error:
            if "no locator" not in str(error):
                raise
            return numba.njit(**settings)(function)

    return compiled if function is None else compiled(function)


def guard(dispatcher: Any) -> Any:
    """Make the disk cache of a compiled function one that can fail: a fault in it costs a compilation.

    Parameters
    ----------
    dispatcher : numba dispatcher
        With ``cache=True``; its cache is changed in place.

    Returns
    -------
    dispatcher
        The same.

    Notes
    -----
    numba lets an OSError of its cache end the call. And where two processes compile one function for different types
    at once, both may choose the same file for their machine code, so that the index of one names the code of the
    other: what is read is used only if it was compiled for the types that were asked for. Nor does it look at the files
    of helpers: theirs join the stamp of the kernel's own.
    """
    if not hasattr(dispatcher, "_cache"):  # NUMBA_DISABLE_JIT: a plain function
        return dispatcher
    cache = dispatcher._cache
    stamps = sorted((path.name, sha256(path.read_bytes()).hexdigest()) for path in helper_files(dispatcher.py_func))
    if stamps:
        cache._cache_file._source_stamp = (cache._cache_file._source_stamp, *stamps)
    load, save = cache.load_overload, cache.save_overload

    def load_overload(types: Any, context: Any) -> Any:
        try:
            found = load(types, context)
            wanted, _ = normalize_signature(types)
        except Exception:  # unreadable, cut short, not what numba wrote
            return None
        return found if found is not None and tuple(found.signature.args) == tuple(wanted) else None

    def save_overload(types: Any, compiled: Any) -> None:
        try:
            try:
                save(types, compiled)
            except OSError:
                raise
            except Exception:  # an index that cannot be read: begin it anew
                cache.flush()
                save(types, compiled)
        except Exception:  # a full disk, a folder that is read-only by now
            return

    cache.load_overload, cache.save_overload = load_overload, save_overload
    return dispatcher


def helper_files(function: Callable) -> set[Path]:
    """Other files than its own that the compiled functions and intrinsics called by a function come from.

    Parameters
    ----------
    function : callable
        In Python. Its helpers are those that it calls by their names in its module, and theirs in turn; a file that
        is not there (in a program that was frozen) cannot be edited, and is left out.
    """
    met = [function]
    for caller in met:  # which grows
        named = map(caller.__globals__.get, caller.__code__.co_names)
        helpers = (getattr(value, "py_func", None) or getattr(value, "_defn", None) for value in named)
        met += [helper for helper in dict.fromkeys(helpers) if helper is not None and helper not in met]
    files = {Path(caller.__code__.co_filename) for caller in met} - {Path(function.__code__.co_filename)}
    return {path for path in files if path.is_file()}
