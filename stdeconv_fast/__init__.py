"""Cell-type proportions of spatial transcriptomics spots from a single-cell reference.

Every public name is loaded at its first use, so that ``import stdeconv_fast`` alone loads no other package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import io, pl, pp, tl
    from .attention_regression_deconv import AttentionRegressionDeconv
    from .built import BuiltReference
    from .errors import DataError, DataTypeError, DataWarning, DeviceError, MemoryLimitError
    from .io.stores import open_spots
    from .original_draws import OriginalDraws
    from .pages.writing import report
    from .parcels import Result
    from .pipeline import deconvolve
    from .scoring import evaluate
    from .settings import Settings
    from .studies.references import build_reference, filter_reference
    from .studies.search import tune
    from .studies.sweeps import robustness
    from .tissue import simulate

    __version__: str

__all__ = [
    "AttentionRegressionDeconv",
    "BuiltReference",
    "DataError",
    "DataTypeError",
    "DataWarning",
    "DeviceError",
    "MemoryLimitError",
    "OriginalDraws",
    "Result",
    "Settings",
    "__version__",
    "build_reference",
    "deconvolve",
    "evaluate",
    "filter_reference",
    "io",
    "open_spots",
    "pl",
    "pp",
    "report",
    "robustness",
    "simulate",
    "tl",
    "tune",
]

_HOMES = {
    "AttentionRegressionDeconv": "attention_regression_deconv",
    "BuiltReference": "built",
    "DataError": "errors",
    "DataTypeError": "errors",
    "DataWarning": "errors",
    "DeviceError": "errors",
    "MemoryLimitError": "errors",
    "OriginalDraws": "original_draws",
    "Result": "parcels",
    "Settings": "settings",
    "build_reference": "studies.references",
    "deconvolve": "pipeline",
    "open_spots": "io.stores",
    "evaluate": "scoring",
    "filter_reference": "studies.references",
    "report": "pages.writing",
    "robustness": "studies.sweeps",
    "simulate": "tissue",
    "tune": "studies.search",
}
_SUBMODULES = ("io", "pl", "pp", "tl")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _SUBMODULES:
        value = import_module(f"{__name__}.{name}")
    elif name == "__version__":
        value = _version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("stdeconv-fast")
    except PackageNotFoundError:
        return "0+uninstalled"
