"""What a page tells in words and tables: types, checks of the input, settings, fit, time, all as plain values."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..thresholds import STRONG_PLATFORM, UNRELATED
from .sources import Answer

PRESENT = 0.05  # proportion from which a type counts as there
SIGNIFICANT = 0.05  # q-value
WORST_GENES = 20  # that are shown
STAGES = (
    "input", "reference", "counts", "graph", "first fit", "tuning", "passes", "fit", "standard errors", "detection",
    "cells",
)  # in the order of the run; files keep names sorted


def tell_facts(answer: Answer) -> dict[str, Any]:
    """Everything but the maps.

    Parameters
    ----------
    answer : Answer

    Returns
    -------
    dict
        "checks": rows of (name, value, remark or ""); "notes": the warnings of the run; "types": names; "table": for
        all spots and for each section a row a type; "columns" of it; "settings", "call", "versions", "inputs":
        name to value; "tuning": what was tried, and the choice; "fit": name to value; "genes": those explained worst;
        "seconds", "memory_gb".
    """
    params = plain(answer.params)
    told = params.get("diagnostics", {})
    rows = [np.arange(len(answer.sections))]
    if len(answer.section_names) > 1:
        rows += [np.flatnonzero(answer.sections == s) for s in range(len(answer.section_names))]
    columns = _columns(answer)
    provenance, seconds = params.get("provenance", {}), params.get("seconds", {})
    return {
        "name": answer.name,
        "n_spots": len(answer.shares),
        "version": params.get("version", ""),
        "checks": check_input(answer, params),
        "notes": _texts(told.get("notes", [])),
        "types": answer.types,
        "columns": columns,
        "table": [_describe_types(answer, part, told.get("cells_per_type")) for part in rows],
        "settings": params.get("settings", {}),
        "call": params.get("call", {}),
        "versions": provenance.get("versions", {}),
        "inputs": provenance.get("inputs", {}),
        "tuning": _tuning(params),
        "smoothing": {name: params.get(name) for name in ("lambda_spatial", "phi", "tuned")},
        "fit": _fit(answer),
        "genes": _worst_genes(answer),
        "seconds": {name: seconds[name] for name in sorted(seconds, key=_turn)},
        "memory_gb": params.get("memory_gb"),
        "device": told.get("device", ""),
        "abundance": told.get("abundance", ""),
    }


def check_input(answer: Answer, params: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What was read and used, and what of it asks for a look: (name, value, remark); "" where all is well."""
    told = params.get("diagnostics", {})
    known = np.isfinite(answer.shares).all(axis=1)
    left_out = answer.status[answer.status != "ok"].value_counts()
    why = ", ".join(f"{number:,} {name}" for name, number in left_out.items())
    checks = [
        ("Spots estimated", f"{known.sum():,} of {len(known):,}", why),
        ("Sections", f"{len(answer.section_names):,}", ""),
    ]
    if "n_cells" in told:
        cells = f"{told['n_cells']:,} of {len(answer.types):,} types"
        checks.append(("Reference cells", cells, _few_cells(answer, told)))
    if "n_genes_used" in told:
        used, shared = told["n_genes_used"], told["n_genes_shared"]
        few = "fewer than ten a type: expect mixed-up types" if used < 10 * len(answer.types) else ""
        checks.append(("Genes used", f"{used:,} of {shared:,} shared", few))
    sd = told.get("platform_log2_sd")
    if sd is not None:
        strong = "strong: genes were fitted jointly with the composition" if told.get("platform") == "joint" else ""
        remark = strong or ("strong" if sd >= STRONG_PLATFORM else "")
        likeness = told.get("gene_correlation")
        if likeness is not None and sd >= STRONG_PLATFORM and likeness < UNRELATED:
            shown = f"{round(likeness, 2) + 0.0:.2f}"  # not -0.00
            remark = f"observed and expected counts of genes correlate by {shown} only: is it the same tissue?"
        checks.append(("Platform effect", f"log2 sd {sd:.2f} over genes, {told.get('platform')}", remark))
    checks.append(("Proportions are shares of", str(told.get("abundance", "?")), ""))
    return checks


def _worst_genes(answer: Answer) -> dict[str, list]:
    """The genes most in excess in the spots that fit worst; empty where the run measured no fit."""
    if answer.gene_fit is None:
        return {}
    worst = answer.gene_fit.sort_values("rank", kind="stable").head(WORST_GENES)
    measures = {name: worst[name].astype(float).tolist() for name in ("unexplained", "dispersion")}
    return {"name": worst.index.astype(str).tolist(), **measures}


def _few_cells(answer: Answer, told: dict[str, Any]) -> str:
    sizes = told.get("cells_per_type")
    if not sizes or len(sizes) != len(answer.types):
        return ""
    few = [f"{name} {size:,.0f}" for name, size in zip(answer.types, sizes, strict=True) if 0 < size < 10]
    return f"fewer than ten cells: {', '.join(few)}" if few else ""


def _columns(answer: Answer) -> list[dict[str, str]]:
    """Columns of the table of types: key, heading, kind of number, what it means."""
    columns = [
        ("name", "Type", "text", "cell type"),
        ("mean", "Mean", "percent", "mean proportion over the spots estimated"),
        ("highest", "Highest", "percent", "highest proportion of a spot"),
        ("present", "Spots with 5 %", "count", "spots with a proportion of 5 % and more"),
        ("dominant", "Dominant in", "count", "spots where no other type has a higher proportion"),
    ]
    if answer.errors is not None:
        columns.append(("error", "Standard error", "percent", "mean standard error of the proportions"))
    if answer.q_values is not None:
        columns.append(("detected", "Detected in", "count", "spots where the q-value of presence is 0.05 and less"))
    if answer.params.get("diagnostics", {}).get("cells_per_type") is not None:
        columns.append(("cells", "Reference cells", "count", "cells of the type in the reference"))
    return [dict(zip(("key", "title", "kind", "meaning"), column, strict=True)) for column in columns]


def _describe_types(answer: Answer, rows: np.ndarray, cells: Any) -> list[dict[str, Any]]:
    shares = answer.shares[rows]
    known = np.isfinite(shares).all(axis=1)
    shares = shares[known]
    winners = np.bincount(shares.argmax(axis=1), minlength=len(answer.types)) if len(shares) else None
    found = []
    for k, name in enumerate(answer.types):
        values = shares[:, k]
        row: dict[str, Any] = {
            "name": name, "mean": float(values.mean(dtype=np.float64)) if len(values) else None,
            "highest": float(values.max()) if len(values) else None,
            "present": int((values >= PRESENT).sum()), "dominant": 0 if winners is None else int(winners[k]),
        }  # fmt: skip
        if answer.errors is not None:
            errors = answer.errors[rows, k]
            errors = errors[np.isfinite(errors)]
            row["error"] = float(errors.mean(dtype=np.float64)) if len(errors) else None
        if answer.q_values is not None:
            row["detected"] = int((answer.q_values[rows, k] <= SIGNIFICANT).sum())
        if cells is not None and len(cells) == len(answer.types):
            row["cells"] = int(cells[k])
        found.append(row)
    return found


def _tuning(params: dict[str, Any]) -> dict[str, Any]:
    """What was tried, as columns, and what was chosen before `lambda_spatial` multiplied it."""
    path = params.get("path", {})
    if not path or not params.get("tuned"):
        return {}
    factor = params.get("settings", {}).get("lambda_spatial") or 1.0
    return {**path, "chosen": {"lambda_spatial": params["lambda_spatial"] / factor, "phi": params["phi"]}}


def _fit(answer: Answer) -> list[tuple[str, str, str]]:
    """How well the types explain the counts: (name, value, meaning)."""
    found = []
    deviance = answer.fit.get("deviance")
    if deviance is not None and np.isfinite(deviance).any():
        low, middle, high = np.nanquantile(deviance, (0.05, 0.5, 0.95))
        found.append((
            "Deviance a count", f"{middle:.3g}", f"median; 90 % of the spots between {low:.3g} and {high:.3g}",
        ))  # fmt: skip
    q_values = answer.fit.get("misfit_q")
    if q_values is not None and np.isfinite(q_values).any():
        number, known = int((q_values <= SIGNIFICANT).sum()), int(np.isfinite(q_values).sum())
        found.append((
            "Spots that fit badly", f"{number:,} of {known:,}",
            "q-value of the misfit 0.05 and less: candidates for a type that the reference lacks",
        ))  # fmt: skip
    return found


def _turn(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def _texts(values: Any) -> list[str]:
    return [str(value) for value in (values if isinstance(values, list) else [values])]


def plain(value: Any) -> Any:
    """Values of any h5ad file as JSON knows them; NaN and infinity are None."""
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str | int | bool) or value is None else str(value)
