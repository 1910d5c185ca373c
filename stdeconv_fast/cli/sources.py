"""Opens what a command is given, whatever platform wrote it: spots to be read by blocks, a reference, their labels."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData

    from ..built import BuiltReference
    from ..io.stores import SpotStore


@contextmanager
def open_input(path: str, layer: str | None) -> Iterator[SpotStore]:
    """The spots at a path, open for reading by blocks.

    h5ad files, zarr folders and folders of such are read where they lie. The folder of a platform (what
    `stdeconv_fast.io.read` recognises) is read whole and copied into a temporary h5ad file first.

    Raises
    ------
    DataError
        Nothing that is known is there, or it is damaged.
    """
    from ..errors import DataError
    from ..io.platforms import needs_reading, read
    from ..io.probe import probe_all
    from ..io.stores import open_spots

    probe_all(Path(path), "SPATIAL")
    with called("SPATIAL"):
        whole = needs_reading(Path(path))
    if not whole:
        with open_spots(path, layer) as store:
            yield store
        return
    with tempfile.TemporaryDirectory(prefix="stdeconv_fast-") as folder:
        copy = Path(folder) / "spots.h5ad"
        with called("SPATIAL"):
            read(path).write_h5ad(copy)
        try:
            with open_spots(copy, layer) as store:
                yield store
        except DataError as fault:
            raise type(fault)(str(fault).replace(str(copy), path)) from fault


def read_labels(store: SpotStore, spatial_key: str, neighbors_key: str | None) -> AnnData:
    """The spots without their counts: obs, var, places, and the neighbour graph that is asked for.

    Where the key of the places is "spatial" and missing, they are taken from where platforms keep them, as
    `stdeconv_fast.io.read` does.
    """
    from ..io.platforms import fill_places

    spots = store.without_counts(spatial_key)
    if spatial_key == "spatial":
        fill_places(spots)
    if neighbors_key is not None:
        spots.obsp[neighbors_key] = _read_graph(store, neighbors_key)
    return spots


def _read_graph(store: SpotStore, key: str) -> Any:
    from anndata.io import read_elem

    from ..errors import DataError
    from ..io.disk import opened, reading
    from ..io.labels import names_in

    if len(store.tiles) > 1:
        raise DataError("--neighbors-key must be left out where SPATIAL is a folder of tiles; its files have no graph.")
    path = store.tiles[0].path
    with opened(path) as root:
        there = names_in(root, "obsp")
        if key not in there:
            listed = ", ".join(map(repr, there)) or "no graph"
            remedy = "Run squidpy.gr.spatial_neighbors first, or leave it out."
            raise DataError(f"spatial.obsp must have {key!r}; got {listed}. {remedy}")
        with reading(f"spatial.obsp[{key!r}]", path):
            return read_elem(root["obsp"][key])


def read_cells(path: str, max_memory: float | None) -> AnnData | BuiltReference:
    """The reference at a path: a built one, an AnnData, or what a platform wrote, whole."""
    from ..built import BuiltReference
    from ..io.archives import is_archive
    from ..io.platforms import needs_reading, read
    from ..io.probe import probe_all
    from .sections import read_table

    if is_archive(path):
        return BuiltReference.load(path)
    probe_all(Path(path), "REFERENCE")
    with called("REFERENCE"):
        if needs_reading(Path(path)):
            return read(path, images=False)
    return read_table(path, "REFERENCE", max_memory)


@contextmanager
def called(name: str) -> Iterator[None]:
    """Faults name what the user gave, rather than `path`."""
    from ..errors import DataError

    try:
        yield
    except DataError as fault:
        raise type(fault)(str(fault).replace("`path`", name)) from fault
