"""The random parts of ``objective="original"``: those that a user hands in, and those that we draw by counting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .draws import GOLDEN, keys_of, mix
from .errors import DataError, DataTypeError

if TYPE_CHECKING:
    from .settings import Settings

MOST_DIMENSIONS = 64  # of the cells in the attention layer
MOST_HEADS = 4
NAME = "original_draws"


@dataclass(frozen=True, eq=False)
class OriginalDraws:
    """What the original program drew at random in one run, to repeat that run.

    Parameters
    ----------
    projection : array, (n_dimensions, n_genes)
        Weights that turn a normalised cell into the input of the attention layer; the genes are the shared ones, in
        the order of the spots' table. n_dimensions is min(64, n_genes) in the original.
    in_proj : array, (3 n_dimensions, n_dimensions)
        Packed weights of queries, keys and values (the last third is not used).
    bias : array, (3 n_dimensions,)
        Packed biases of the same.
    noise : array, (n_sweeps, n_spots, n_genes), or None
        Added to the normalised spots at every solve; n_sweeps is max(1, n_iter // 2). None: no noise.
    knn_index : array of int, (n_spots, k_neighbors), optional
        Nearest spots of each spot, itself among them, nearest first: which of equally near spots were taken.

    Raises
    ------
    DataError
        Shapes that do not go together, values that are not finite.
    DataTypeError
        No array of numbers.
    """

    projection: np.ndarray
    in_proj: np.ndarray
    bias: np.ndarray
    noise: np.ndarray | None
    knn_index: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, n_axes in (("projection", 2), ("in_proj", 2), ("bias", 1), ("noise", 3), ("knn_index", 2)):
            value = getattr(self, name)
            if value is not None or name in ("projection", "in_proj", "bias"):
                object.__setattr__(self, name, _array(value, name, n_axes, whole=name == "knn_index"))
        size, n_genes = self.projection.shape
        if not 1 <= size <= n_genes:
            raise DataError(
                f"`{NAME}.projection` must have from 1 row to as many as it has genes; got the shape "
                f"{self.projection.shape}. Pass it as (n_dimensions, n_genes)."
            )
        _must_be(self.in_proj, "in_proj", (3 * size, size), "as `projection` has rows")
        _must_be(self.bias, "bias", (3 * size,), "as `projection` has rows")
        if self.noise is not None:
            _must_be(self.noise, "noise", (*self.noise.shape[:2], n_genes), "as `projection` has genes")

    @property
    def n_heads(self) -> int:
        """Heads of the attention layer: the original's rule, or the next lower number that divides the dimensions."""
        size = len(self.projection)
        most = min(MOST_HEADS, max(1, size // 16 + 1))
        return next(heads for heads in range(most, 0, -1) if size % heads == 0)


def _array(value: Any, name: str, n_axes: int, whole: bool) -> np.ndarray:
    """The value as an array of float64 (int64 with `whole`), checked."""
    array = np.asarray(value)
    kinds = "iu" if whole else "iuf"
    if array.dtype.kind not in kinds:
        what = "whole numbers" if whole else "numbers"
        got = type(value).__name__ if array.dtype.kind == "O" else str(array.dtype)
        raise DataTypeError(f"`{NAME}.{name}` must be an array of {what}; got {got}.")
    if array.ndim != n_axes:
        raise DataError(f"`{NAME}.{name}` must have {n_axes} axes; got the shape {array.shape}.")
    array = array.astype(np.int64 if whole else np.float64)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        raise DataError(f"`{NAME}.{name}` must be finite; got {array[place]} at {place}.")
    array.flags.writeable = False
    return array


def _must_be(array: np.ndarray, name: str, shape: tuple[int, ...], reason: str) -> None:
    if array.shape != shape:
        raise DataError(f"`{NAME}.{name}` must have the shape {shape}, {reason}; got {array.shape}.")


def count_sweeps(n_iter: int) -> int:
    """Sweeps of the cell level in the original program."""
    return max(1, n_iter // 2)


def check_draws(draws: Any, settings: Settings, n_spots: int, n_genes: int) -> None:
    """Refuse draws that do not go with the settings or with the input.

    Parameters
    ----------
    draws : OriginalDraws or None
    settings : Settings
    n_spots, n_genes : int
        Of the input; the genes are the shared ones.

    Raises
    ------
    DataError
        `draws` with another objective, or of another size.
    DataTypeError
        `draws` is no OriginalDraws.
    """
    if draws is None:
        return
    if not isinstance(draws, OriginalDraws):
        raise DataTypeError(f"`{NAME}` must be a stdeconv_fast.OriginalDraws or None; got {type(draws).__name__}.")
    if settings.objective != "original":
        raise DataError(
            f"`{NAME}` must be None with objective={settings.objective!r}; got random parts. Pass objective='original'."
        )
    size = len(draws.projection)
    _must_be(draws.projection, "projection", (size, n_genes), f"as the two tables share {n_genes} genes")
    if draws.noise is not None:
        shape = (count_sweeps(settings.n_iter), n_spots, n_genes)
        _must_be(draws.noise, "noise", shape, f"(sweeps, spots, genes) with n_iter={settings.n_iter}")
    index = draws.knn_index
    if index is not None:
        _must_be(index, "knn_index", (n_spots, settings.k_neighbors), "(spots, k_neighbors)")
        bad = np.argwhere((index < 0) | (index >= n_spots))
        if len(bad):
            i, j = bad[0]
            raise DataError(
                f"`{NAME}.knn_index` must hold rows of the spots, 0 to {n_spots - 1}; got {index[i, j]} at ({i}, {j})."
            )


def draw_layers(gene_keys: np.ndarray, seed: int) -> OriginalDraws:
    """Layers of the attention, drawn by counting from the distributions of the original program; no noise.

    Parameters
    ----------
    gene_keys : (n_genes,) uint64
        Made from the content of the genes (`draws.keys_of`): the column of a gene hangs on its own key alone.
    seed : int

    Notes
    -----
    projection ~ U(-1/sqrt(G), 1/sqrt(G)); in_proj ~ U(-b, b), b = sqrt(6 / (4 E)); biases 0.
    """
    n_genes = len(gene_keys)
    size = min(MOST_DIMENSIONS, n_genes)
    projection = _uniform(gene_keys[None, :], np.arange(size)[:, None]) / np.sqrt(n_genes)
    row = keys_of(seed, np.arange(3.0 * size))
    in_proj = _uniform(row[:, None], np.arange(size)[None, :]) * np.sqrt(6 / (4 * size))
    return OriginalDraws(projection, in_proj, np.zeros(3 * size), None)


def _uniform(keys: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Numbers from -1 to 1 for each pair of a key and a number."""
    hashed = mix(keys ^ mix(number.astype(np.uint64) + GOLDEN))
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
