"""How close proportions are to a known truth."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from .errors import DataError, DataTypeError, DataWarning


def evaluate(proportions: Any, truth: Any | None) -> dict[str, Any] | None:
    """Compare proportions with a truth.

    Two DataFrames are matched by label, spots and types alike; labels are compared as text, so that 3 is '3'. If
    one of the two is an array, both are matched by position. Rows are divided by their sums.

    Parameters
    ----------
    proportions : DataFrame or array_like, (n_spots, n_types)
        Finite and >= 0, or NaN. A row of NaN is a spot about which nothing is said: it is left out and counted.
    truth : DataFrame or array_like, (n_spots, n_types), or None
        Finite and >= 0, or NaN. A row without any value above 0 is left out and counted.

    Returns
    -------
    dict or None
        None where `truth` is None. Else, over all spots and types at once: ``mse``, ``mae``, ``r2`` (coefficient of
        determination), ``pearson``, ``spearman``; ``cosine`` (cosine similarity of a spot's two rows, mean over
        spots); ``rmse``; ``jsd`` (Jensen-Shannon divergence in bits, mean over spots); ``auprc`` (average precision
        of the proportions in telling which types are present, truth > 0); ``pearson_type`` (mean, over the types
        that have one, of the correlation over spots); ``per_type`` (DataFrame, types by ``pearson``, ``rmse``,
        ``mean_truth``, ``mean_predicted``); ``n_spots`` (spots compared); ``n_spots_left_out``.

    Raises
    ------
    DataError
        Labels occur twice; no spot or no type is shared; arrays of different shape; values that are negative or
        infinite; no spot is left to compare.
    DataTypeError
        An argument is no table of numbers.

    Warns
    -----
    DataWarning
        Some spots are on one side only: the shared ones are compared.

    Notes
    -----
    A type that is missing on one side counts as 0 there, as does a single NaN; types of the truth that the
    proportions lack are kept. A row of zeros in the proportions stays as it is. Correlations with a side that is
    constant (up to rounding) are NaN, and so is r2 of a single value; r2 of a constant truth is 1 where the
    proportions equal it and else 0, as in scikit-learn. Proportions that agree to 12 decimals are ties: they share one
    threshold in ``auprc`` and one rank in ``spearman``, whatever the order of the types was when rows were summed.

    References
    ----------
    Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory 37, 1991.
    """
    if truth is None:
        return None
    predicted, true = _table(proportions, "proportions"), _table(truth, "truth")
    if isinstance(proportions, pd.DataFrame) and isinstance(truth, pd.DataFrame):
        predicted, true = _matched(predicted, true)
    elif predicted.shape != true.shape:
        raise DataError(
            f"`proportions` and `truth` must have the same shape if one is an array; got {predicted.shape} and "
            f"{true.shape}. Pass two DataFrames to match by label."
        )
    types = true.columns if isinstance(truth, pd.DataFrame) else predicted.columns
    p, t = predicted.to_numpy(), true.to_numpy()
    said = ~np.isnan(p).all(axis=1) & (np.nansum(t, axis=1) > 0)
    if not said.any():
        raise DataError(
            f"`proportions` and `truth` must both say something about at least one spot; got none in {len(said)}."
        )
    p, t = _normalised(p[said]), _normalised(t[said])
    return {**_measures(p, t, types), "n_spots": int(said.sum()), "n_spots_left_out": int((~said).sum())}


def _table(values: Any, name: str) -> pd.DataFrame:
    """The values as a float64 table with text labels, checked."""
    is_frame = isinstance(values, pd.DataFrame)
    try:
        array = values.to_numpy(dtype=np.float64, na_value=np.nan) if is_frame else np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataTypeError(f"`{name}` must be a table of numbers; got {type(values).__name__} ({error}).") from None
    if array.ndim != 2:
        raise DataTypeError(f"`{name}` must have two dimensions, spots and types; got {array.ndim}.")
    if not is_frame:
        return _refuse_bad_values(pd.DataFrame(array).rename(index=str, columns=str), name)
    table = pd.DataFrame(array, index=values.index.map(str), columns=values.columns.map(str))
    for axis, labels in (("spot", table.index), ("type", table.columns)):
        twice = labels[labels.duplicated()]
        if len(twice):
            number = Counter(labels)[twice[0]]
            raise DataError(f"`{name}` must name each {axis} once; got {twice[0]!r} {number} times.")
    return _refuse_bad_values(table, name)


def _refuse_bad_values(table: pd.DataFrame, name: str) -> pd.DataFrame:
    values = table.to_numpy()
    bad = np.argwhere(np.isinf(values) | (values < 0))
    if len(bad):
        i, k = bad[0]
        raise DataError(
            f"`{name}` must be finite and >= 0, or NaN; got {values[i, k]:g} at spot {table.index[i]!r}, "
            f"type {table.columns[k]!r}."
        )
    return table


def _matched(predicted: pd.DataFrame, true: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables over the shared spots and over all types, the truth's first; a type that is missing is 0."""
    for axis, left, right in (("spot", predicted.index, true.index), ("type", predicted.columns, true.columns)):
        if left.intersection(right).empty:
            raise DataError(
                f"`proportions` and `truth` must share at least one {axis}; got none of {len(left)} and {len(right)}. "
                f"First names: {', '.join(repr(labels[0]) for labels in (left, right) if len(labels))}. "
                "Pass arrays to match by position."
            )
    shared = true.index[true.index.isin(predicted.index)]
    if len(shared) < max(len(predicted), len(true)):
        warnings.warn(
            f"{len(shared)} spots are compared: of {len(predicted)} spots in the proportions and {len(true)} in the "
            "truth, the others are on one side only.",
            DataWarning,
            stacklevel=3,
        )
    types = true.columns.append(predicted.columns.difference(true.columns, sort=False))
    predicted, true = predicted.loc[shared], true.loc[shared]
    nothing = predicted.isna().all(axis=1)
    predicted = predicted.reindex(columns=types, fill_value=0.0)
    predicted.loc[nothing] = np.nan
    return predicted, true.reindex(columns=types, fill_value=0.0)


def _normalised(values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values, nan=0.0)
    sums = values.sum(axis=1, keepdims=True)
    return np.divide(values, sums, out=np.zeros_like(values), where=sums > 0)


def _measures(p: np.ndarray, t: np.ndarray, types: pd.Index) -> dict[str, Any]:
    """All measures of proportions `p` against `t`, both (n_spots, n_types) with rows that sum to 1."""
    from scipy.stats import rankdata

    flat_p, flat_t = p.ravel(), t.ravel()
    tied_p, tied_t = flat_p.round(12), flat_t.round(12)
    error = p - t
    mse = float((error**2).mean())
    per_type = pd.DataFrame(
        {
            "pearson": [_pearson(p[:, k], t[:, k]) for k in range(len(types))],
            "rmse": np.sqrt((error**2).mean(axis=0)),
            "mean_truth": t.mean(axis=0),
            "mean_predicted": p.mean(axis=0),
        },
        index=pd.Index(types, name="type"),
    )
    defined = per_type["pearson"].dropna()
    return {
        "mse": mse,
        "mae": float(np.abs(error).mean()),
        "r2": _r2(flat_p, flat_t),
        "pearson": _pearson(flat_p, flat_t),
        "spearman": _pearson(rankdata(tied_p), rankdata(tied_t)),
        "cosine": _cosine(p, t),
        "rmse": float(np.sqrt(mse)),
        "jsd": _jensen_shannon(p, t),
        "auprc": _average_precision(tied_p, flat_t > 0),
        "pearson_type": float(defined.mean()) if len(defined) else float("nan"),
        "per_type": per_type,
    }


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if any(np.ptp(side) <= 1e-12 * np.abs(side).max() for side in (x, y)):
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1, 1))


def _r2(p: np.ndarray, t: np.ndarray) -> float:
    if len(t) < 2:
        return float("nan")
    rest, total = float(((t - p) ** 2).sum()), float(((t - t.mean()) ** 2).sum())
    if total == 0:
        return 1.0 if rest == 0 else 0.0
    return 1 - rest / total


def _cosine(p: np.ndarray, t: np.ndarray) -> float:
    norms = np.linalg.norm(p, axis=1) * np.linalg.norm(t, axis=1)
    return float(np.divide((p * t).sum(axis=1), norms, out=np.zeros(len(p)), where=norms > 0).mean())


def _jensen_shannon(p: np.ndarray, t: np.ndarray) -> float:
    middle = (p + t) / 2
    divergence = np.zeros(len(p))
    for side in (p, t):
        ratio = np.divide(side, middle, out=np.ones_like(side), where=side > 0)
        divergence += (side * np.log2(ratio)).sum(axis=1) / 2
    return float(divergence.mean())


def _average_precision(score: np.ndarray, present: np.ndarray) -> float:
    order = np.argsort(-score, kind="stable")
    score, present = score[order], present[order]
    last = np.r_[score[1:] != score[:-1], True]  # equal scores share one threshold
    found = np.cumsum(present)[last]
    precision = found / (np.flatnonzero(last) + 1)
    return float((np.diff(found, prepend=0) * precision).sum() / present.sum())
