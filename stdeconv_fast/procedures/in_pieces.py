"""Reads the counts into pieces: all in memory, or by tiles in a work folder."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from scipy.sparse import issparse

from ..backend import check_memory, plan_bytes
from ..errors import DataError, DataTypeError, DataWarning, DeviceError
from ..parallel import Workers
from ..parcels import Inputs
from ..settings import Settings
from ..stages import ingest, reference
from ..work_folder import WorkFolder, digest
from . import tiles as tile_work
from .pieces import Whole
from .tiles import Tiled

TILE_SPOTS = 100_000  # where the number of tiles is left open
FREE_SETTINGS = ("n_jobs", "progress", "device", "max_memory")  # that a resumed run may change


@dataclass(frozen=True)
class Tiling:
    """How the tissue is cut: the work folder, and the tile of each spot, (n_spots,) int64."""

    folder: WorkFolder
    tiles: np.ndarray


@contextmanager
def open_tiling(
    inputs: Inputs,
    settings: Settings,
    tiles: int | None,
    work_folder: str | os.PathLike[str] | None,
    resume: bool,
    keep: bool = False,
) -> Iterator[Tiling | None]:
    """Cut the tissue and hold its work folder; None where neither tiles nor a folder are asked for.

    The folder is removed when the block ends well, unless it is to be kept; else it stays, to be resumed, unless it is
    a temporary one.

    Raises
    ------
    DataError
        Settings that tiles do not go with; a folder of another run.
    """
    if tiles is None and work_folder is None:
        if resume:
            raise DataError("`resume` must be False without a work folder; got True. Pass work_folder.")
        yield None
        return
    _check(settings, tiles, resume)
    usable = inputs.spot_status == "ok"
    number = count_tiles(inputs, tiles, work_folder) or 1
    cut = tile_work.cut_tiles(inputs.coordinates, inputs.sections, usable, number, settings.seed)
    with tempfile.TemporaryDirectory(prefix="stdeconv_fast-") as temporary:
        place = work_folder if work_folder is not None else os.path.join(temporary, "work")
        with WorkFolder(place, _fingerprint(inputs, settings, number), bool(resume)) as folder:
            yield Tiling(folder, cut)
            if not keep:
                folder.clear()


def count_tiles(inputs: Inputs, tiles: int | None, work_folder: str | os.PathLike[str] | None) -> int | None:
    """Tiles that the tissue is cut into; None where it is solved whole."""
    if isinstance(tiles, int | np.integer) and tiles >= 1:
        return int(tiles)
    if work_folder is None:
        return None
    return max(1, -(-int((inputs.spot_status == "ok").sum()) // TILE_SPOTS))


def _check(settings: Settings, tiles: int | None, resume: bool) -> None:
    if tiles is not None and (isinstance(tiles, bool) or not isinstance(tiles, int | np.integer)):
        raise DataTypeError(f"`tiles` must be a whole number or None; got {tiles!r}.")
    if tiles is not None and tiles < 1:
        raise DataError(f"`tiles` must be at least 1; got {tiles}.")
    if not isinstance(resume, bool | np.bool_):
        raise DataTypeError(f"`resume` must be True or False; got {resume!r}.")
    if settings.objective == "original":
        raise DataError("`objective` must be 'model' with tiles; got 'original'. Solve the tissue whole.")
    if settings.cell_level:
        raise DataError(
            "`cell_level` must be False with tiles; got True. Run the part of the tissue that needs cells by itself."
        )


def _fingerprint(inputs: Inputs, settings: Settings, tiles: int) -> dict[str, str | int | float | bool | None]:
    """What makes this run this run: its data by content, its settings, the version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        release = version("stdeconv-fast")
    except PackageNotFoundError:
        release = "uninstalled"
    source = ingest.source_of(inputs.spots)
    ranges = source.cut(ingest.STREAMED)
    first = source.read(*ranges[0])
    cells = inputs.reference
    sums = () if inputs.type_sums is None else vars(inputs.type_sums).values()
    chosen = {name: value for name, value in settings.as_dict().items() if name not in FREE_SETTINGS}
    return {
        "version": release,
        "tiles": tiles,
        "spots": digest(source.shape, ranges, first.indptr, first.indices, first.data),
        "coordinates": digest(inputs.coordinates),
        "sections": digest(inputs.sections),
        **({} if inputs.links is None else {"neighbors": digest(inputs.links.indptr, inputs.links.indices)}),
        "names of spots": digest(*inputs.spot_names),
        "names of genes": digest(*inputs.genes),
        "reference": digest(
            cells.shape, cells.indptr, cells.indices, cells.data, *sums, inputs.cell_types, *inputs.types
        ),
        **{name: str(value) if isinstance(value, list) else value for name, value in chosen.items()},
    }


def read_counts(
    inputs: Inputs,
    profiles: reference.Profiles,
    settings: Settings,
    status: np.ndarray,
    notes: list[str],
    workers: Workers,
    tiling: Tiling | None,
) -> tuple[Whole | Tiled, np.ndarray, np.ndarray, np.ndarray, bool]:
    """Read the counts once, choose the genes, note in `status` who has none.

    Returns
    -------
    Whole or Tiled
    kept : (n_genes,) int64
        Kept genes, as positions among the shared ones.
    gene_totals : (n_shared,) float64
        Counts of the shared genes over the usable spots.
    rows : (n_used,) int64
        The spots used.
    whole : bool
        Whether all values are whole numbers.
    """
    in_memory = issparse(inputs.spots)
    source = ingest.source_of(inputs.spots)
    ranges = source.cut(ingest.IN_MEMORY if in_memory and tiling is None else ingest.STREAMED)
    usable = status == "ok"
    again = in_memory and tiling is None  # a matrix in memory is read a second time, once the genes are known

    def read(genes: np.ndarray, room: str) -> list[ingest.Block]:
        gene_map = ingest.map_genes(source.shape[1], inputs.spot_genes[genes])
        reader = ingest.reader(source, usable, gene_map, entries=not again)
        if tiling is None:
            return workers.each(reader, ranges)
        return tile_work.read_blocks(tiling.folder, ranges, reader, tiling.tiles, settings.n_jobs, room)

    candidates, room = reference.choose_candidates(profiles), "blocks"
    blocks = read(candidates, room)
    whole = inputs.integer_counts
    if not in_memory:
        whole = ingest.check_blocks(source, ranges, blocks, settings.check_counts)
        status[usable & ~np.concatenate([block.filled for block in blocks])] = "no counts"
    gene_totals = np.sum([block.sums for block in blocks], axis=0)[inputs.spot_genes]
    kept = _enough(reference.choose_genes(profiles, gene_totals), inputs, notes)
    _every_type_seen(profiles, kept, inputs)
    renumber = None
    if not np.isin(kept, candidates).all():  # few genes were seen: others are kept than the reference alone told
        room = "blocks-again"
        blocks = read(kept, room)
    elif len(kept) < len(candidates):
        renumber = ingest.map_genes(len(candidates), np.searchsorted(candidates, kept))
    seen = np.concatenate([block.totals for block in blocks]) > 0
    if not seen.all():
        status[(status == "ok") & ~seen] = "no counts in the genes used"
    if not seen.any():
        raise DataError("spatial must have counts in the genes shared with the reference; got none.")
    rows, dtype = np.flatnonzero(seen), np.dtype(settings.dtype)
    if again:
        gene_map = ingest.map_genes(source.shape[1], inputs.spot_genes[kept])
        counts = ingest.gather_blocks(source, ranges, blocks, usable, gene_map, dtype, workers)
        return Whole(counts, workers), kept, gene_totals, rows, whole
    if tiling is None:
        counts = ingest.join_blocks(blocks, len(kept), renumber, dtype, workers)
        return Whole(counts, workers), kept, gene_totals, rows, whole
    tiled = Tiled.from_blocks(
        tiling.folder, ranges, blocks, tiling.tiles, len(kept), dtype, settings.n_jobs, renumber, room
    )
    tiled.device = workers.device.split()[0]
    return tiled, kept, gene_totals, rows, whole


def settle_device(
    pieces: Whole | Tiled, workers: Workers, settings: Settings, n_types: int, notes: list[str]
) -> tuple[Whole | Tiled, Workers]:
    """The pieces and workers that go on: those of the host where the device has too little memory and device="auto".

    Raises
    ------
    DeviceError
        Too little memory, and device="cuda".
    """
    if workers.device == "cpu" or isinstance(pieces, Tiled):
        return pieces, workers
    counts, dtype = pieces.counts, np.dtype(settings.dtype)
    entry = counts.indices.itemsize + counts.data.itemsize
    edges = 2 * max(settings.k_neighbors, 4) * counts.n_spots
    needed = plan_bytes(counts.n_spots, len(counts.data), edges, n_types, counts.n_genes, entry, dtype)
    try:
        check_memory(workers.card, needed, counts.n_spots)
    except DeviceError as error:
        if settings.device == "cuda":
            raise
        notes.append(f"device='auto' runs on the CPU. {error}")
        return Whole(counts, workers.host), workers.host
    return pieces, workers


def _enough(kept: np.ndarray, inputs: Inputs, notes: list[str]) -> np.ndarray:
    """The kept genes; a clear error where both tables share none with counts."""
    if not len(kept):
        raise DataError(
            f"spatial and reference must share genes with counts in both; got none of {len(inputs.genes)} shared "
            "genes. Check that both tables are of the same tissue and species."
        )
    if len(kept) < len(inputs.types):
        notes.append(f"{len(kept)} genes tell {len(inputs.types)} types apart: expect mixed-up types")
        warnings.warn(notes[-1], DataWarning, stacklevel=5)
    return kept


def _every_type_seen(profiles: reference.Profiles, kept: np.ndarray, inputs: Inputs) -> None:
    """A clear error where a type has no count in the genes used: nothing could be said of it."""
    unseen = [name for name, seen in zip(inputs.types, profiles.means[:, kept].any(axis=1), strict=True) if not seen]
    if unseen:
        raise DataError(
            f"reference must have counts of every type in the genes used; got none of "
            f"{', '.join(map(repr, unseen))} in {len(kept):,} genes. Pass exclude_types={unseen!r}."
        )


