"""Every number that can be tuned: its unit, range and default, checked on creation."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

from .errors import DataError, DataTypeError

OBJECTIVES = ("model", "original")
LOSSES = ("poisson", "gaussian")
PLATFORMS = ("auto", "pooled", "joint", "none")
ABUNDANCES = ("auto", "cells", "mrna")
DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("float32", "float64")
POISSON_ALONE = ("standard_errors", "detection", "unknown")
MOST, MOST_WHOLE = 1e12, 2**62  # beyond these working numbers overflow


@dataclass(frozen=True)
class Settings:
    """The settings of one run.

    Parameters
    ----------
    phi : float in [0, 1]
        Share of the neighbours' mean that a spot is drawn to. With tuning one candidate beside 0.8, 0.9, 0.95, 0.99
        and 1, kept where nothing beats it; with ``tune=False`` the value that is used.
    lambda_cell : float >= 0
        Multiplies the strength of the attention graph among the reference cells (0: no such graph).
    lambda_spatial : float >= 0
        Multiplies the strength of the spatial smoothing, be it chosen from the data or, with ``tune=False``,
        20 counts (0: no smoothing).
    lambda_ridge : float >= 0
        Ridge at the type level, in counts; multiplies the ridge at the cell level.
    max_cells_per_type : int >= 1
        Reference cells of a type that the cell level uses; the profiles use all cells.
    n_iter : int >= 1
        Passes of attention and solve; the first uses place alone.
    k_neighbors : int >= 0
        Neighbours of a spot (spots as far as the last of them count too; 0: no smoothing).
    attention : bool
        Let a spot listen more to neighbours of like composition; False: by place alone.
    loss : {"poisson", "gaussian"}
        Poisson likelihood of the raw counts, or least squares on log1p of counts per 10,000.
    platform : {"auto", "pooled", "joint", "none"}
        How the gene-wise effect of the technology is estimated.
    abundance : {"auto", "cells", "mrna"}
        Whether proportions are shares of cells or of mRNA; "auto" takes cells where the platform effect is
        weak enough for library sizes to be trusted.
    tune : bool
        Choose the smoothing from the data by count thinning.
    cell_level : bool
        Go down to single reference cells.
    max_cells_per_spot : int >= 1
        Reference cells that a spot keeps at most.
    standard_errors : bool
        Give a standard error for every proportion (Poisson loss alone). With the cell level too they are those of
        the type level.
    detection : bool
        Give a q-value for the presence of every type in every spot (Poisson loss alone), at the type level.
    unknown : bool
        Add one type, "unknown", whose profile is estimated from what the reference leaves unexplained (Poisson loss
        and type level alone).
    min_shared_genes : int >= 2
        Fewer shared genes are refused.
    min_cells_per_type : int >= 1
        Types with fewer labelled cells are left out with a warning.
    exclude_types : tuple of str
        Types of the reference that are left out.
    check_counts : bool
        Refuse values that are no raw counts. With False such values are used and tuning is off.
    dtype : {"float32", "float64"}
        Type of the working arrays; sums over spots and genes are float64 in any case.
    seed : int >= 0
        Of the count thinning and of the draw of cells.
    device : {"auto", "cpu", "cuda"}
        Where the kernels run; "auto" takes CUDA where CuPy and a GPU are there and can hold the run.
    n_jobs : int or None
        Threads; -1: all that the process may use; None: what joblib's context says, else one.
    max_memory : float or None
        GB (1e9 bytes) that a run may take besides its input, by an estimate made before the work; more is refused.
        None: what is available, limits of containers included.
    progress : bool
        Show progress bars on long stages, on a terminal and in notebooks.
    objective : {"model", "original"}
        "original": what the original program computes, to repeat its results (the README tells why it is not the
        default). phi, the lambdas, max_cells_per_type, n_iter and k_neighbors, which counts the spot itself, then
        mean what they mean there; nothing is tuned, `seed` draws the attention among the cells, which alone is in
        single precision, and `cell_level` says whether the weights of the cells, all of them, are given, too.

    Raises
    ------
    DataError
        A value is out of its range.
    DataTypeError
        A value is of the wrong kind.
    """

    phi: float = 0.8
    lambda_cell: float = 1.0
    lambda_spatial: float = 1.0
    lambda_ridge: float = 1.0
    max_cells_per_type: int = 1000
    n_iter: int = 5
    k_neighbors: int = 6
    attention: bool = True
    loss: str = "poisson"
    platform: str = "auto"
    abundance: str = "auto"
    tune: bool = True
    cell_level: bool = False
    max_cells_per_spot: int = 200
    standard_errors: bool = False
    detection: bool = False
    unknown: bool = False
    min_shared_genes: int = 10
    min_cells_per_type: int = 1
    exclude_types: tuple[str, ...] = ()
    check_counts: bool = True
    dtype: str = "float32"
    seed: int = 0
    device: str = "auto"
    n_jobs: int | None = -1
    max_memory: float | None = None
    progress: bool = True
    objective: str = "model"

    def __post_init__(self) -> None:
        faults: list[DataError] = []

        def number(name: str, low: float, high: float | None = None, whole: bool = False) -> None:
            value = getattr(self, name)
            kind = Integral if whole else Real
            rule = f"be {'a whole number' if whole else 'a number'} " + (
                f">= {low:g}" if high is None else f"from {low:g} to {high:g}"
            )
            high = (MOST_WHOLE if whole else MOST) if high is None else high
            if isinstance(value, bool) or not isinstance(value, kind):
                faults.append(DataTypeError(f"`{name}` must {rule}; got {value!r}."))
            elif not low <= value <= high:  # nan is not
                limit = f" and at most {high:.3g}" if value > high > 1 else ""
                faults.append(DataError(f"`{name}` must {rule}{limit}; got {str(value)[:40]}."))
            else:
                object.__setattr__(self, name, int(value) if whole else float(value))

        def choice(name: str, options: tuple[str, ...]) -> None:
            value = getattr(self, name)
            if not isinstance(value, str) or value not in options:
                faults.append(DataError(f"`{name}` must be one of {', '.join(options)}; got {value!r}."))

        def switch(name: str) -> None:
            value = getattr(self, name)
            if not (isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")):
                faults.append(DataTypeError(f"`{name}` must be True or False; got {value!r}."))
            else:
                object.__setattr__(self, name, bool(value))

        number("phi", 0, 1)
        for name in ("lambda_cell", "lambda_spatial", "lambda_ridge"):
            number(name, 0)
        for name, low in (
            ("max_cells_per_type", 1), ("n_iter", 1), ("k_neighbors", 0), ("max_cells_per_spot", 1),
            ("min_shared_genes", 2), ("min_cells_per_type", 1), ("seed", 0),
        ):  # fmt: skip
            number(name, low, whole=True)
        for name, options in (
            ("objective", OBJECTIVES), ("loss", LOSSES), ("platform", PLATFORMS), ("abundance", ABUNDANCES),
            ("device", DEVICES),
        ):  # fmt: skip
            choice(name, options)
        dtype = getattr(self.dtype, "__name__", None) or str(self.dtype)
        object.__setattr__(self, "dtype", dtype)
        choice("dtype", DTYPES)
        for name in ("attention", "tune", "cell_level", "check_counts", "progress", *POISSON_ALONE):
            switch(name)
        for name in POISSON_ALONE:
            if getattr(self, name) is True and self.loss == "gaussian":
                rule = f"`{name}` must be False with loss='gaussian'; got True."
                faults.append(DataError(f"{rule} {name} needs the Poisson loss."))
        if self.unknown is True and self.cell_level is True:
            rule = "`unknown` must be False with cell_level=True; got True."
            faults.append(DataError(f"{rule} An unknown type has no cells: set cell_level=False."))
        if self.objective == "original":
            faults += self._unknown_to_the_original()
        if self.max_memory is not None:
            number("max_memory", 0)
        if self.n_jobs is not None:
            if isinstance(self.n_jobs, bool) or not isinstance(self.n_jobs, Integral):
                faults.append(DataTypeError(f"`n_jobs` must be a whole number or None; got {self.n_jobs!r}."))
            elif self.n_jobs == 0:
                faults.append(DataError("`n_jobs` must not be 0; got 0. Use -1 for all cores or None for one."))
            else:
                object.__setattr__(self, "n_jobs", int(self.n_jobs))
        names = (self.exclude_types,) if isinstance(self.exclude_types, str) else self.exclude_types
        try:
            object.__setattr__(self, "exclude_types", tuple(str(name) for name in (() if names is None else names)))
        except TypeError:
            faults.append(DataTypeError(f"`exclude_types` must be a list of type names; got {self.exclude_types!r}."))
        raise_faults(faults, "settings")

    def _unknown_to_the_original(self) -> list[DataError]:
        """Settings that the original program has nothing for, where they are not left at their defaults."""
        usual = {
            "loss": "poisson", "platform": "auto", "abundance": "auto", "attention": True, "standard_errors": False,
            "detection": False, "unknown": False,
        }  # fmt: skip
        faults = [
            DataError(
                f"`{name}` must be {value!r}, its default, with objective='original'; got {getattr(self, name)!r}. "
                "The original program has no such choice."
            )
            for name, value in usual.items()
            if getattr(self, name) != value
        ]
        if self.device == "cuda":
            faults.append(DataError("`device` must be 'auto' or 'cpu' with objective='original'; got 'cuda'."))
        return faults

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain Python values."""
        return {**asdict(self), "exclude_types": list(self.exclude_types)}

    @classmethod
    def make(cls, **values: Any) -> Settings:
        """Settings from keywords; an unknown one is named, with the ones that there are.

        Parameters
        ----------
        **values
            Fields of the class.

        Raises
        ------
        DataError
            A value is out of its range.
        DataTypeError
            A keyword is no field, or a value of the wrong kind.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise DataTypeError(
                f"settings must be among {', '.join(known)}; got {', '.join(map(repr, unknown))}."
            )
        return cls(**values)

    def but(self, **values: Any) -> Settings:
        """A copy with some values replaced.

        Parameters
        ----------
        **values
            Fields of the class; they are checked as on creation.
        """
        return replace(self, **values)


def raise_faults(faults: list[DataError], where: str) -> None:
    """Raise nothing, the one fault, or all of them in one message."""
    if not faults:
        return
    if len(faults) == 1:
        raise faults[0]
    kind = DataTypeError if all(isinstance(fault, DataTypeError) for fault in faults) else DataError
    raise kind(f"{len(faults)} faults in the {where}:\n" + "\n".join(f"- {fault}" for fault in faults))
