"""Deconvolution of AnnData objects, in the manner of scanpy's ``tl``."""

from .cells import refine_cells
from .diagnosis import Diagnosis, diagnose
from .runs import deconvolve, tune

__all__ = ["Diagnosis", "deconvolve", "diagnose", "refine_cells", "tune"]
