"""How much the answer suffers when its input gets worse: one kind of disturbance, some levels, repeats."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DataError, DataTypeError
from ..parcels import Inputs
from ..scoring import evaluate
from ..settings import Settings, raise_faults
from ..stages.inputs import read_inputs
from .disturbances import KINDS, disturb

if TYPE_CHECKING:
    from anndata import AnnData

    Method = Callable[[AnnData, AnnData], pd.DataFrame]

log = logging.getLogger("stdeconv_fast")

METRICS = ("pearson", "rmse", "jsd", "auprc")
OURS = "stdeconv_fast"
KEY, SECTION = "cell_type", "section"


def robustness(
    spatial: Any,
    reference: Any,
    coordinates: Any = None,
    cell_types: Any = None,
    *,
    kind: str,
    levels: Sequence[float] = (0.0, 0.3, 0.6, 0.9),
    repeats: int = 3,
    truth: Any = None,
    methods: Mapping[str, Method] | None = None,
    sections: Any = None,
    layer_st: str | None = None,
    layer_sc: str | None = None,
    spatial_key: str = "spatial",
    jobs: int | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Measure how the proportions change as the input is disturbed more and more.

    Parameters
    ----------
    spatial, reference, coordinates, cell_types, sections, layer_st, layer_sc, spatial_key
        As for `stdeconv_fast.deconvolve`.
    kind : {"noise", "gene_drop", "cell_drop", "depth", "label_noise", "type_drop"}
        What is disturbed. "noise": counts of the reference, upwards alone, by ``level`` standard deviations of the
        gene times \\|z\\|, z standard normal, rounded at random to whole counts. The others lose the share ``level``:
        "gene_drop" of the genes of the spots, "cell_drop" of the cells of each type (one stays), "depth" of the
        molecules of the spots, "label_noise" of the right labels of each type, "type_drop" of the types of the
        reference (one stays).
    levels : sequence of float in [0, 1)
        0: the input as it is, which is run once.
    repeats : int >= 1
        Draws of a level.
    truth : DataFrame, (n_spots, n_types), optional
        What the proportions are compared with, as `stdeconv_fast.evaluate` does it; by default the same method's
        answer to the undisturbed input: the figures then tell how stable the answer is, not how right.
    methods : mapping of name to callable, optional
        Others to compare: each is called with two AnnData objects, spots (``obsm["spatial"]``, ``obs["section"]``)
        and cells (``obs["cell_type"]``), raw counts in X, and gives a DataFrame of spots by types. By default
        "stdeconv_fast" alone, which is `stdeconv_fast.deconvolve` with the `settings`; it is always there.
    jobs : int or None
        Runs at once, as joblib takes it; None: what ``joblib.parallel_config`` says, else one. Each run has
        `n_jobs` threads.
    **settings
        Fields of `stdeconv_fast.Settings`; `seed` is that of the draws too.

    Returns
    -------
    DataFrame
        A row for each level, repeat and method: ``kind``, ``level``, ``repeat``, ``method``, ``against`` ("truth", or
        "undisturbed": the same method's answer to the undisturbed input), ``pearson``, ``rmse``, ``jsd``, ``auprc``,
        ``n_spots`` (compared), ``seconds`` and ``note``: empty, or why a run failed; its figures are NaN then. The
        rows do not depend on the order of spots, cells and genes, nor on the number of jobs.

    Raises
    ------
    DataError
        Input or settings that cannot be used, an unknown kind, levels out of range; before any run.
    """
    from joblib import Parallel, delayed

    from .. import pipeline

    chosen = Settings.make(**{"progress": False, **settings})
    levels = _check(kind, levels, repeats, truth, methods, jobs)
    inputs = read_inputs(
        spatial, reference, coordinates, cell_types, sections=sections, layer_st=layer_st, layer_sc=layer_sc,
        spatial_key=spatial_key, settings=chosen,
    )  # fmt: skip
    _check_truth(truth, inputs)
    spots, cells = as_pair(inputs)
    values = chosen.as_dict() | {"exclude_types": ()}

    def ours(spots: AnnData, cells: AnnData) -> pd.DataFrame:
        return pipeline.deconvolve(spots, cells, None, KEY, sections=SECTION, **values).proportions

    methods = {OURS: ours, **(methods or {})}

    def attempt(level: float, repeat: int) -> list[dict[str, Any]]:
        return _run(methods, disturb(spots, cells, KEY, kind=kind, level=level, repeat=repeat, seed=chosen.seed))

    plan = [(level, repeat) for level in levels for repeat in range(repeats if level > 0 else 1)]
    if truth is None and 0.0 not in levels:
        plan.append((0.0, 0))
    # threads: the jobs share the tables; the kernels work without the interpreter's lock
    found = Parallel(n_jobs=jobs, prefer="threads")(delayed(attempt)(*job) for job in plan)
    answers = dict(zip(plan, found, strict=True))
    rows, compared = [], "undisturbed" if truth is None else "truth"
    for level in levels:
        for repeat in range(repeats):
            for number, answer in enumerate(answers[level, repeat if level > 0 else 0]):
                against = answers[0.0, 0][number]["proportions"] if truth is None else truth
                rows.append({"kind": kind, "level": level, "repeat": repeat, **_score(answer, against, compared)})
    return pd.DataFrame(rows)


def as_pair(inputs: Inputs) -> tuple[AnnData, AnnData]:
    """Checked input as two AnnData objects: ``obsm["spatial"]``, ``obs["section"]``; ``obs["cell_type"]``.

    Cells without a type are left out. Genes that one table alone has are kept, under names of their own.
    """
    import anndata

    if inputs.type_sums is not None and not inputs.reference.nnz:
        raise DataError(
            "`reference` must hold the counts of its cells; got one built without. Build it with keep_cells=True."
        )

    def var(n_genes: int, columns: np.ndarray, word: str) -> pd.DataFrame:
        names = np.array([f"{word} gene {j}" for j in range(n_genes)], dtype=object)
        names[columns] = inputs.genes
        return pd.DataFrame(index=pd.Index(names))

    section = pd.Categorical.from_codes(inputs.sections, list(inputs.section_names))
    spots = anndata.AnnData(
        inputs.spots, obs=pd.DataFrame({SECTION: section}, index=pd.Index(inputs.spot_names)),
        var=var(inputs.spots.shape[1], inputs.spot_genes, "spatial"), obsm={"spatial": inputs.coordinates},
    )  # fmt: skip
    labelled = np.flatnonzero(inputs.cell_types >= 0)
    types = np.array(inputs.types, dtype=object)[inputs.cell_types[labelled]]
    counts = inputs.reference if len(labelled) == len(inputs.cell_types) else inputs.reference[labelled]
    cells = anndata.AnnData(
        counts, obs=pd.DataFrame({KEY: pd.Categorical(types)}, index=pd.Index(inputs.cell_names[labelled])),
        var=var(inputs.reference.shape[1], inputs.reference_genes, "reference"),
    )  # fmt: skip
    return spots, cells


def _check_truth(truth: pd.DataFrame | None, inputs: Inputs) -> None:
    """A truth of other spots scores nothing: told before the work."""
    for axis, names, what in ((0, inputs.spot_names, "rows"), (1, inputs.types, "columns")):
        if truth is None or truth.axes[axis].map(str).isin(set(map(str, names))).any():
            continue
        unit, given = ("spots", "types")[axis], [str(name) for name in truth.axes[axis][:1]]
        raise DataError(
            f"`truth` must have {what} named like the {unit}; got none of {len(names)}. First names: "
            f"{', '.join(map(repr, [*given, str(names[0])]))}. "
            f"Set truth.{('index', 'columns')[axis]} to the names of the {unit}."
        )


def _check(kind: Any, levels: Any, repeats: Any, truth: Any, methods: Any, jobs: Any) -> list[float]:
    """The levels as floats; one error for all that is wrong."""
    faults: list[DataError] = []
    if kind not in KINDS:
        faults.append(DataError(f"`kind` must be one of {', '.join(KINDS)}; got {kind!r}."))
    given = list(levels) if isinstance(levels, Sequence | np.ndarray) and not isinstance(levels, str) else []
    numbers = [level for level in given if isinstance(level, Real) and not isinstance(level, bool) and 0 <= level < 1]
    if not given or len(numbers) < len(given) or len(set(numbers)) < len(given):
        faults.append(DataError(f"`levels` must be different numbers from 0 to below 1; got {levels!r}."))
    if isinstance(repeats, bool) or not isinstance(repeats, Integral) or repeats < 1:
        faults.append(DataError(f"`repeats` must be a whole number >= 1; got {repeats!r}."))
    if truth is not None and not isinstance(truth, pd.DataFrame):
        got = f"`truth` must be a DataFrame, spots x types, or None; got {type(truth).__name__}."
        faults.append(DataTypeError(f"{got} Types are matched by name, as some may be left out."))
    if methods is not None and not (
        isinstance(methods, Mapping) and all(isinstance(k, str) and callable(call) for k, call in methods.items())
    ):
        faults.append(DataTypeError(f"`methods` must map names to callables; got {methods!r}."))
    elif methods and OURS in methods:
        faults.append(DataError(f"`methods` must have other names than {OURS!r}, which is always there."))
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, Integral) or jobs == 0):
        faults.append(DataError(f"`jobs` must be a whole number other than 0, or None; got {jobs!r}."))
    raise_faults(faults, "study")
    return [float(level) for level in numbers]


def _run(methods: Mapping[str, Method], pair: tuple[AnnData, AnnData]) -> list[dict[str, Any]]:
    """What each method makes of a pair: proportions (None where it failed), seconds, note."""
    answers = []
    for name, method in methods.items():
        started, note, found = time.perf_counter(), "", None
        try:
            found = method(*pair)
        except DataError as error:
            note = str(error)
            log.warning("%s failed: %s", name, note)
        answers.append(
            {"method": name, "proportions": found, "seconds": time.perf_counter() - started, "note": note}
        )
    return answers


def _score(answer: dict[str, Any], against: pd.DataFrame | None, compared: str) -> dict[str, Any]:
    """The row of one answer, over the spots that both sides have; `compared` says what the other side is."""
    row = {"method": answer["method"], "against": compared} | dict.fromkeys(METRICS, float("nan")) | {"n_spots": 0}
    found, note = answer["proportions"], answer["note"]
    if found is not None and against is None:
        note = "no answer to the undisturbed input"
    elif found is not None:
        found, against = (table.set_axis(table.index.map(str), axis=0) for table in (found, against))
        both = against.index[against.index.isin(found.index)]
        try:
            scores = evaluate(found.loc[both], against.loc[both])
            row |= {name: scores[name] for name in (*METRICS, "n_spots")}
        except DataError as error:
            note = str(error)
    return row | {"seconds": answer["seconds"], "note": note}
