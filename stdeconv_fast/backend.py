"""The device seam: where the kernels run. Only this file may import CuPy."""

from __future__ import annotations

import logging

from .errors import DeviceError

log = logging.getLogger("stdeconv_fast")


def choose_device(device: str) -> str:
    """The device that a run uses.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}

    Raises
    ------
    DeviceError
        "cuda" was asked for: this version has no CUDA kernels yet.
    """
    if device == "cuda":
        raise DeviceError(
            "`device` must be 'auto' or 'cpu' in this version; got 'cuda'. The CUDA kernels are not released yet."
        )
    log.info("device: cpu")
    return "cpu"
