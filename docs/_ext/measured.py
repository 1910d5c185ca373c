"""Tables of the benchmark pages, from the raw numbers in benchmarks/results/; no number is written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from numbers import Real
from pathlib import Path
from typing import Any

from benchmarks import readme
from benchmarks.readme_trust import RESULTS, load, mean, to_table

PICTURES = {"picture_peers": "peers.png", "picture_robustness": "robustness.png"}


def summary() -> str:
    """The figures that most people ask for, each with the section where it stands whole."""
    accuracy, fits = load("accuracy"), load("calibration")["table"]
    sets = len({row["set"] for row in accuracy})
    held = [row["coverage"] for row in fits if row["case"] == "the model holds" and "false discoveries" in row]
    left_out = load("missing_types")["table"]
    bins = max((entry for entry in load("peers") if entry["kind"] == "hd"), key=lambda entry: entry["n"])
    ours, peer = bins["tools"]["ours"], bins["tools"]["flashdeconv"]

    def of(method: str) -> str:
        return f"{mean(row['pearson'] for row in accuracy if row['method'] == method):.3f}"

    def found(method: str) -> str:
        return f"{mean(row[method] for row in left_out):.3f}"

    size = f"{bins['n']:,} bins"
    mine, theirs = ([f"{tool['wall']:.0f}", f"{tool['peak_mb'] / 1e3:.1f}"] for tool in (ours, peer))
    theirs_is = f"flashdeconv {bins['versions']['peer']['flashdeconv']}"
    return to_table(["measured", "ours", theirs_is, "NNLS"], [
        [f"mean Pearson, {sets} sets with known composition", of("ours"), of("flashdeconv"), of("NNLS")],
        [f"{size}, {bins['date'][:10]}: seconds from file to file", mine[0], theirs[0], "-"],
        [f"{size}, the same: peak memory, GB", mine[1], theirs[1], "-"],
        [f"{len(left_out)} types left out: mean AUROC of finding them", found("ours"), found("flashdeconv"), "-"],
        ["90 % intervals cover, while the model holds", f"{min(held):.0%} to {max(held):.0%}", "-", "-"],
    ])  # fmt: skip


def calibration_bands() -> str:
    """Coverage by the size of the true share, while the model holds."""
    rows = [row for row in load("calibration")["table"] if row["case"] == "the model holds"]
    depths = sorted({row["counts"] for row in rows})
    bands = sorted({(row["share above"], row["share to"]) for row in rows}, key=lambda band: (band[1] - band[0]))
    cell = {(row["share above"], row["share to"], row["counts"]): row for row in rows}
    out = []
    for low, high in bands:
        found = [cell.get((low, high, depth)) for depth in depths]
        out.append([f"{low:.0%} to {high:.0%}", *("-" if row is None else f"{row['coverage']:.0%}" for row in found)])
    return to_table(["true share", *(f"{depth:,} counts" for depth in depths)], out)


def warned() -> str:
    """How often the warning of a missing type comes."""
    found = load("missing_types")
    lacking, whole = found["table"], found["sets"].values()
    return (
        f"The warning comes with {sum(row['warned'] for row in lacking)} of the {len(lacking)} references that lack a "
        f"type, and with {sum(entry['whole reference warned'] for entry in whole)} of the {len(whole)} whole ones."
    )


def parity() -> str:
    """Largest difference of `objective="original"` from three runs of the original program, stage by stage."""
    rows = load("original")["parity"]
    fixtures = list(dict.fromkeys(row["fixture"] for row in rows))
    cell = {(row["stage"], row["fixture"]): row for row in rows}
    out = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        found = [cell.get((stage, name)) for name in fixtures]
        limit = next(row["limit"] for row in found if row)
        out.append([stage, *("-" if row is None else f"{row['error']:.1e}" for row in found), f"{limit:.0e}"])
    return to_table(["stage", *(name.replace("_", " ") for name in fixtures), "limit"], out)


def faults() -> str:
    """What became of every fault that was injected."""
    found = load("faults")["faults"]
    bad = sum(entry["outcome"] == "NOT CLEAN" for entry in found.values())
    rows = [[name, entry["outcome"], f"{entry['seconds']:.0f}"] for name, entry in found.items()]
    head = f"{len(found)} faults, {len(found) - bad} of them with a clean end.\n\n"
    return head + to_table(["fault", "end", "s"], rows)


def fuzz() -> str:
    """What came of thousands of mutated inputs."""
    found = load("fuzz")
    words = list(dict.fromkeys(word for counts in found["outcomes"].values() for word in counts))
    rows = [[face, *(f"{counts.get(word, 0):,}" for word in words)] for face, counts in found["outcomes"].items()]
    head = f"{found['inputs']:,} inputs in {found['seconds']:,.0f} s, {len(found['bad'])} with a bad end.\n\n"
    return head + to_table(["given to", *words], rows)


def machines() -> str:
    """On which machine each file was measured, where it says so."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        for machine in _unique(_find(json.loads(path.read_text(encoding="utf-8")), "machine")):
            rows.append([
                f"`{path.name}`", str(machine.get("cpu", "-")), str(machine.get("cores", "-")),
                f"{machine['memory_gb']:g}" if "memory_gb" in machine else "-",
            ])  # fmt: skip
    return to_table(["file", "processor", "cores", "memory, GB"], rows)


def versions() -> str:
    """When and with what the comparison with flashdeconv was measured."""
    rows = []
    for entry in load("peers"):
        ours, peer = entry["versions"]["ours"], entry["versions"].get("peer", {})
        rows.append([
            f"{entry['n']:,} {'bins' if entry['kind'] == 'hd' else 'spots'}", entry["date"][:10], str(entry["repeats"]),
            ", ".join(f"{name} {ours[name]}" for name in ("stdeconv_fast", "numba", "numpy") if name in ours),
            ", ".join(f"{name} {peer[name]}" for name in ("flashdeconv", "numba", "numpy") if name in peer),
        ])  # fmt: skip
    return to_table(["spots", "date", "runs", "ours with", "theirs with"], rows)


def the_rest() -> str:
    """Every file of results and every table of README.md that no other section shows."""
    shown = {name.removeprefix("measured_") for name in MAKERS} | {"attention"}
    parts = []
    for path in sorted(RESULTS.glob("*.json")):
        if path.stem not in shown:
            parts.append(f"**`{path.name}`**\n\n{_plainly(json.loads(path.read_text(encoding='utf-8')))}")
    return "\n\n".join(parts) or "None: every file of results has its section."


def _plainly(found: Any) -> str:
    """Any results as tables: lists of records, records of numbers."""
    if isinstance(found, list) and found and all(isinstance(row, dict) for row in found):
        names = [name for name in dict.fromkeys(key for row in found for key in row) if _told(found[0].get(name, 0))]
        return to_table(names, [[_cell(row.get(name)) for name in names] for row in found])
    if isinstance(found, dict):
        own = {name: value for name, value in found.items() if _told(value)}
        parts = [to_table(["what", "value"], [[name, _cell(value)] for name, value in own.items()])] if own else []
        parts += [f"{name}:\n\n{_plainly(found[name])}" for name in found if name not in own and name != "machine"]
        return "\n\n".join(parts)
    return _cell(found)


def _told(value: Any) -> bool:
    return value is None or isinstance(value, str | Real)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def _find(found: Any, key: str) -> Iterable[dict]:
    if isinstance(found, dict):
        if isinstance(found.get(key), dict):
            yield found[key]
        found = list(found.values())
    if isinstance(found, list):
        for value in found:
            yield from _find(value, key)


def _unique(machines: Iterable[dict]) -> list[dict]:
    kept = {(one.get("cpu"), one.get("cores"), one.get("memory_gb")): one for one in machines}
    return list(kept.values())


def _maker(make: Callable[[], str]) -> Callable[[], tuple[str, list[Path]]]:
    def made() -> tuple[str, list[Path]]:
        try:
            return make(), sorted(RESULTS.glob("*.json"))
        except FileNotFoundError as fault:
            return f"*Not measured yet: `benchmarks/results/{Path(fault.filename).name}` is missing.*", []

    return made


def _picture(name: str) -> Callable[[], tuple[str, list[Path]]]:
    def made() -> tuple[str, list[Path]]:
        there = (RESULTS / name).exists()
        return f"![{Path(name).stem}](../benchmarks/results/{name})" if there else f"*No picture {name}.*", []

    return made


OWN = (summary, calibration_bands, warned, parity, faults, fuzz, machines, versions, the_rest)
MAKERS = {f"measured_{name}": _maker(make) for name, make in readme.BLOCKS.items()}
MAKERS |= {f"measured_{make.__name__}": _maker(make) for make in OWN}
MAKERS |= {name: _picture(file) for name, file in PICTURES.items()}
