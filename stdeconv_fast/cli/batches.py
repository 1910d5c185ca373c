"""Many files of spots with one reference: what is done, what failed, what is skipped."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import plain_warnings
from .recipes import recipe_path
from .requests import demand_text, demand_there
from .sections import KEY, deconvolve_file
from .sources import read_cells
from .words import to_options

if TYPE_CHECKING:
    from anndata import AnnData

    from ..built import BuiltReference
    from .requests import Request

FAILED = 3  # exit code where a file failed
BLOCK = 1 << 22  # bytes of a file that are read at once
STATUS, RESET, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs"), "VmHWM:"


def run_batch(
    request: Request, settings: dict[str, Any], work: str | None, resume: bool, as_json: bool, quiet: bool
) -> None:
    """Run every file, tell how it went; ends with exit code 3 where one failed."""
    from tqdm import tqdm

    from ..backend import choose_device

    outs = _name_outputs(request, work)
    tables, works = _name_beside(outs, request.run["csv"], ".csv"), _name_beside(outs, work, "")
    demand_there("REFERENCE", request.reference)
    started = time.perf_counter()
    choose_device(settings.get("device", "auto"))
    cells, rows, shown = _Reference(request, settings), [], not quiet and sys.stderr.isatty()
    jobs = list(zip(request.spatial, outs, tables, works, strict=True))
    for spatial, out, table, place in tqdm(jobs, disable=not shown, unit="file"):
        with plain_warnings(quiet, f"{spatial}: "):
            row = _run_one(request, settings, spatial, out, cells, resume, table, place)
        rows.append(row)
        if row["status"] == "failed":
            tqdm.write(f"stdeconv-fast: error: {row['error']}", file=sys.stderr)
    failed = sum(row["status"] == "failed" for row in rows)
    if as_json:
        numbers = {f"n_{word}": sum(r["status"] == word for r in rows) for word in ("done", "skipped", "failed")}
        summary = {"files": rows, **numbers, "seconds": time.perf_counter() - started}
        click.echo(json.dumps(summary | {"seconds_reference": cells.seconds}, allow_nan=False))
    elif not quiet:
        click.echo(_tell(rows))
    if failed:
        sys.exit(FAILED)


def _name_outputs(request: Request, work: str | None) -> list[str]:
    """Where each answer goes, before any of them is begun; --csv and --work are folders."""
    from ..errors import DataError
    from ..io.archives import is_archive
    from ..settings import raise_faults

    faults = []
    for option, value in (("--work", work), ("--csv", request.run["csv"])):
        if value is not None and Path(value).exists() and not Path(value).is_dir():
            faults.append(DataError(f"{option} must be a folder for a batch, with a part for each; got '{value}'."))
    if request.run["cell_type_key"] is None and not is_archive(request.reference):
        raise click.UsageError("Missing option '--cell-type-key'.")
    demand_text("--out-dir", request.out_dir)
    outs: dict[str, str] = {}
    read = {Path(file).resolve() for file in (*request.spatial, request.reference)}
    for spatial in request.spatial:
        path = Path(spatial)
        name = path.stem if path.suffix in (".h5ad", ".zarr") else path.resolve().name
        out = str(Path(request.out_dir) / f"{name}.h5ad")
        if out in outs.values():
            faults.append(DataError(f"SPATIAL must have names that differ; got {name!r} twice. Rename one."))
        if Path(out).resolve() in read:
            faults.append(DataError(f"--out-dir must be another folder than that of the input; '{out}' is read."))
        outs[spatial] = out
    raise_faults(faults, "batch")
    for folder in (request.out_dir, request.run["csv"], work):
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
    return list(outs.values())


def _name_beside(outs: list[str], folder: str | None, ending: str) -> list[str | None]:
    """Files or folders named as the answers are."""
    return [None if folder is None else str(Path(folder) / (Path(out).stem + ending)) for out in outs]


class _Reference:
    """The reference of a batch: read and summed when the first file needs it, and its fingerprint."""

    def __init__(self, request: Request, settings: dict[str, Any]) -> None:
        from ..io.archives import is_archive
        from ..io.probe import probe_all

        self._request, self._settings = request, settings
        self._found: AnnData | BuiltReference | None = None
        self.seconds = 0.0
        self.prepared = False
        if not is_archive(request.reference):
            probe_all(Path(request.reference), "REFERENCE")
        self.digest = digest_of(request.reference)

    def get(self) -> AnnData | BuiltReference:
        if self._found is None:
            from ..built import BuiltReference
            from ..studies.references import build_reference

            started, run, settings = time.perf_counter(), self._request.run, self._settings
            found = read_cells(self._request.reference, settings.get("max_memory"))
            # what is no counts is read anew by every run: a built reference holds counts
            if not isinstance(found, BuiltReference) and settings.get("check_counts", True):
                keep = bool(settings.get("cell_level")) or settings.get("objective") == "original"
                found = build_reference(
                    found, run["cell_type_key"], layer_sc=run["layer_sc"], keep_cells=keep,
                    n_jobs=settings.get("n_jobs", -1),
                )  # fmt: skip
                self.prepared = True
            self._found, self.seconds = found, time.perf_counter() - started
        return self._found


def _run_one(
    request: Request, settings: dict[str, Any], spatial: str, out: str, cells: _Reference, resume: bool,
    table: str | None, work: str | None,
) -> dict[str, Any]:  # fmt: skip
    """One file: done, skipped or failed."""
    from ..errors import DataError

    row: dict[str, Any] = {
        "spatial": spatial, "out": out, "status": "failed", "seconds": None, "memory_mb": None, "note": "",
        "error": None, "summary": None,
    }  # fmt: skip
    started = time.perf_counter()
    try:
        demand_there("SPATIAL", spatial)
        wanted = _wish(request, settings, digest_of(spatial), cells.digest)
    except (DataError, OSError) as fault:
        return {**row, "error": _named(spatial, str(fault)), "seconds": time.perf_counter() - started}
    if resume:
        other = compare(out, wanted)
        if other is None and table is not None and not Path(table).is_file():
            other = "made anew: no table"
        if other is None:
            return {**row, "status": "skipped", "note": "finished before"}
        row["note"] = other
    cells.get()  # a reference that cannot be used ends the batch
    started, measured = time.perf_counter(), _reset_peak()
    try:
        Path(recipe_path(out)).unlink(missing_ok=True)
        row["summary"] = deconvolve_file(
            spatial, request.reference, out, cells.get, {**request.run, "csv": table}, settings, work=work,
            resume=resume and work is not None and Path(work).exists(), prepared=cells.prepared, request=wanted,
        )  # fmt: skip
        row["status"] = "done"
    except DataError as fault:
        row["error"] = _named(spatial, str(fault))
    except MemoryError:
        row["error"] = _named(spatial, "there is not enough memory for this run.")
    except Exception as fault:  # whatever it is, the other files go on
        row["error"] = _named(spatial, f"{type(fault).__name__}: {fault}")
    row["seconds"] = time.perf_counter() - started
    row["memory_mb"] = _peak_mb() if measured else None
    return row


def _named(spatial: str, message: str) -> str:
    return f"{spatial}: {to_options(message)}"


def digest_of(path: str) -> str:
    """A fingerprint of the bytes of a file, or of all files in a folder by name."""
    root = Path(path)
    files = sorted(file for file in root.rglob("*") if file.is_file()) if root.is_dir() else [root]
    found = hashlib.blake2b(digest_size=16)
    for file in files:
        found.update(f"{file.relative_to(root)}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
        with open(file, "rb") as opened:
            while block := opened.read(BLOCK):
                found.update(block)
    return found.hexdigest()


def _wish(request: Request, settings: dict[str, Any], spatial: str, reference: str) -> str:
    """What the answer is to be made from, as a text that is kept with it."""
    from .. import __version__
    from ..procedures.in_pieces import FREE_SETTINGS
    from ..settings import Settings

    chosen = {n: v for n, v in Settings.make(**settings).as_dict().items() if n not in FREE_SETTINGS}
    chosen["max_cells_per_type"] = settings.get("max_cells_per_type")  # its default hangs on the cell level
    parts = {"version": __version__, "SPATIAL": spatial, "REFERENCE": reference, **request.run, **chosen}
    return json.dumps(parts, sort_keys=True)


def compare(out: str, wanted: str) -> str | None:
    """None where OUT is whole and what is wanted, else what is different, in a few words."""
    import h5py
    from anndata.io import read_elem

    if not Path(out).exists():
        return ""
    if not Path(recipe_path(out)).is_file():
        return "made anew: no settings beside it"
    try:
        with h5py.File(out, "r") as file:
            params = read_elem(file[f"uns/{KEY}_params"])
            if "request" not in params:
                return "made anew: it was not of a batch"
            spots = len(read_elem(file["obs"]))
            if len(read_elem(file[f"obsm/{KEY}"])) != spots:
                return "made anew: it was not whole"
        before, now = json.loads(str(params["request"])), json.loads(wanted)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError):
        return "made anew: it was not whole"
    other = [name for name in now.keys() | before.keys() if now.get(name) != before.get(name)]
    return f"made anew: other {', '.join(sorted(other))}" if other else None


def _reset_peak() -> bool:
    """Let the system measure the peak memory of this process from now on; False where it cannot."""
    try:
        RESET.write_text("5")
        return PEAK in STATUS.read_text()
    except OSError:
        return False


def _peak_mb() -> float | None:
    line = next((line for line in STATUS.read_text().splitlines() if line.startswith(PEAK)), None)
    return int(line.split()[1]) * 1024 / 1e6 if line else None


def _tell(rows: list[dict[str, Any]]) -> str:
    """The table at the end."""
    width = max(len("file"), *(len(row["spatial"]) for row in rows))
    lines = [f"{'file':<{width}}  status   seconds  peak MB  note"]
    for row in rows:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        memory = "" if row["memory_mb"] is None else f"{row['memory_mb']:,.0f}"
        note = row["error"].removeprefix(f"{row['spatial']}: ").splitlines()[0] if row["error"] else row["note"]
        lines.append(f"{row['spatial']:<{width}}  {row['status']:<7}  {seconds:>7}  {memory:>7}  {note}".rstrip())
    return "\n".join(lines)
