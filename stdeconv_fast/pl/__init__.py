"""Figures of an answer: maps, mixtures and curves, in the manner of scanpy's ``pl``."""

from ..studies.plots import robustness
from .colours import OKABE_ITO, REST, TWELVE, UNKNOWN
from .curves import fit, tuning_curve
from .edges import attention
from .maps import dominant, proportions
from .mixtures import composition, cooccurrence
from .wedges import pies

__all__ = [
    "OKABE_ITO", "REST", "TWELVE", "UNKNOWN", "attention", "composition", "cooccurrence", "dominant", "fit", "pies",
    "proportions", "robustness", "tuning_curve",
]  # fmt: skip
