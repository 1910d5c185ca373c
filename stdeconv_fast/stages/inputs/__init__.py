"""Checks what the user passes and turns it into `Inputs`: any kind of table in, names aligned, all faults at once."""

from __future__ import annotations

from typing import Any

from ...built import BuiltReference
from ...errors import DataError
from ...parallel import hold_workers
from ...parcels import Inputs, SpotSource
from ...settings import Settings, raise_faults
from .built import choose_built, table_of
from .counts_check import check_counts
from .findings import Report
from .genes import match_genes
from .labels import read_cell_types
from .links import read_links
from .places import note_places, read_coordinates, read_sections, read_status
from .tables import read_table

__all__ = ["check_cells", "check_spots", "read_inputs"]


def read_inputs(
    spatial: Any,
    reference: Any,
    coordinates: Any,
    cell_types: Any,
    *,
    sections: Any = None,
    neighbors: Any = None,
    layer_st: str | None = None,
    layer_sc: str | None = None,
    spatial_key: str = "spatial",
    spots: SpotSource | None = None,
    settings: Settings,
) -> Inputs:
    """Check and align the input of one run.

    Parameters
    ----------
    spatial : DataFrame, ndarray, sparse matrix or AnnData, (n_spots, n_spatial_genes)
        Raw counts of the spots.
    reference : DataFrame, ndarray, sparse matrix, AnnData or BuiltReference, (n_cells, n_reference_genes)
        Raw counts of the reference cells.
    coordinates : DataFrame, array-like (n_spots, 2 or 3) or None
        Place of each spot, any unit. A frame gives its columns x, y (and z), else its first columns of numbers. None
        takes ``spatial.obsm[spatial_key]``.
    cell_types : Series, DataFrame, list, array, Categorical or str
        Type of each cell; a str names a column of ``reference.obs``; None with a built reference.
    sections : None, str, Series, list, array or Categorical
        Section of each spot; a str names a column of ``spatial.obs``; None: one section.
    neighbors : sparse matrix or array (n_spots, n_spots), str or None
        Who is whose neighbour, in the order of `spatial`; a str names an entry of ``spatial.obsp``; None: the nearest.
    layer_st, layer_sc : str or None
        Layers of an AnnData to use instead of X.
    spatial_key : str
        Key of ``spatial.obsm``.
    spots : SpotSource, optional
        Where the counts of the spots are read from, later; `spatial` is then an AnnData without X. Their values are
        checked as they are read.
    settings : Settings

    Returns
    -------
    Inputs
        CSR matrices in the caller's dtype, with all genes; they may share memory with the caller's and must not be
        written to.

    Raises
    ------
    DataError
        Values that cannot be used: no raw counts, names that do not match, places or labels that are missing. All
        faults are in one message.
    DataTypeError
        Objects of a wrong kind, if there are no other faults.

    Warns
    -----
    DataWarning
        Once for each reason for which data is left out or is weak; the texts are in `Inputs.notes`, too.

    Notes
    -----
    Rows and genes are matched by label where both sides have names, by position (and equal numbers) where one has none.
    The numbering 0, 1, 2, ... that pandas and AnnData make up is no name, unless the other side's names are all such
    numbers: then they are labels (rows of a frame that were shuffled or cut).
    """
    report = Report()
    built = isinstance(reference, BuiltReference)
    with hold_workers(settings.n_jobs) as workers:
        st = read_table(spatial, "spatial", layer_st, report, spots, workers)
        whole = spots is not None or check_counts(st, settings.check_counts, report, workers)
        status = read_status(st, report)
        sc = table_of(reference) if built else read_table(reference, "reference", layer_sc, report, workers=workers)
        if not built:
            check_counts(sc, settings.check_counts, report, workers)
    shared = match_genes(st, sc, settings.min_shared_genes, report)
    places = read_coordinates(coordinates, spatial, st, spatial_key, report)
    if built:
        typed, type_sums = choose_built(reference, sc, cell_types, layer_sc, settings, report)
    else:
        typed = read_cell_types(cell_types, reference, sc, settings.exclude_types, settings.min_cells_per_type, report)
        type_sums = None
    sectioned = read_sections(sections, spatial, st, report)
    links = read_links(neighbors, st, places, sectioned and sectioned[0], settings, report)
    raise_faults(report.faults, "input")
    note_places(places, *sectioned, status, settings.k_neighbors if links is None else 0, report)
    report.warn()
    return Inputs(
        spots=st.counts if spots is None else spots,
        reference=sc.counts,
        coordinates=places,
        sections=sectioned[0],
        section_names=sectioned[1],
        cell_types=typed[0],
        types=typed[1],
        spot_names=st.rows.all_names(),
        cell_names=sc.rows.all_names(),
        genes=shared[0],
        spot_genes=shared[1],
        reference_genes=shared[2],
        spot_status=status,
        integer_counts=whole,
        notes=tuple(report.notes),
        type_sums=type_sums,
        links=links,
    )


def check_spots(spatial: Any, sections: str | None, spatial_key: str, spots: SpotSource) -> list[DataError]:
    """Faults of the spots by themselves, where there is no reference to read them with; as for `read_inputs`."""
    report = Report()
    st = read_table(spatial, "spatial", None, report, spots)
    read_status(st, report)
    read_coordinates(None, spatial, st, spatial_key, report)
    read_sections(sections, spatial, st, report)
    return report.faults


def check_cells(reference: Any, cell_types: str | None, layer_sc: str | None, settings: Settings) -> list[DataError]:
    """Faults of a reference by itself, where there are no spots to read it with; as for `read_inputs`."""
    report = Report()
    sc = read_table(reference, "reference", layer_sc, report)
    check_counts(sc, settings.check_counts, report)
    read_cell_types(cell_types, reference, sc, settings.exclude_types, settings.min_cells_per_type, report)
    return report.faults
