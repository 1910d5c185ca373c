"""Simulated tissue whose composition is known: for tests, benchmarks and first steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from .errors import DataError, DataTypeError
from .settings import raise_faults

if TYPE_CHECKING:
    from anndata import AnnData

KINDS = ("gradients", "domains", "none", "bins")
GRIDS = ("hex", "square", "random")
USUAL = {"counts_per_spot": 1000.0, "platform_sd": 0.3, "mrna_sd": 0.3, "grid": "hex"}
USUAL_BINS = {"counts_per_spot": 320.0, "platform_sd": 0.4, "mrna_sd": 0.25, "grid": "square"}

CELL_COUNTS = 3000  # median counts of a reference cell of mean mRNA content
DEPTH_SD = 0.35  # natural-log sd of the depth of cells and of spots
DISPERSION = 0.3  # of the negative-binomial counts of reference cells
BLOCK = 4_000_000  # random numbers held at once


@dataclass(frozen=True, eq=False)
class Tissue:
    """A simulated tissue, its reference cells and what is true of them.

    Attributes
    ----------
    spots : csr_matrix of int32, (n_spots, n_genes)
        Raw counts.
    reference : csr_matrix of int32, (n_cells, n_genes)
        Raw counts.
    coordinates : ndarray of float64, (n_spots, 2 or 3)
        Places; the unit is the distance of neighbouring spots. Each section has its own origin.
    sections : ndarray of str, (n_spots,)
        Section of each spot.
    cell_types : ndarray of str, (n_cells,)
        Label of each reference cell.
    types, genes, spot_names, cell_names : list of str
    truth : DataFrame, (n_spots, n_types)
        Share of each type among the cells of a spot; rows sum to 1.
    truth_mrna : DataFrame, (n_spots, n_types)
        Share of each type in the mRNA of a spot; rows sum to 1.
    profiles : ndarray of float64, (n_types, n_genes)
        Share of each gene in the mRNA of a type; rows sum to 1.
    mrna_content : ndarray of float64, (n_types,)
        mRNA of a cell of the type; only the ratios of types matter.
    platform_effects : ndarray of float64, (n_genes,)
        Factor by which the spots see a gene more strongly than the reference does.
    parameters : dict
        The arguments of `simulate`, as used.
    """

    spots: sparse.csr_matrix
    reference: sparse.csr_matrix
    coordinates: np.ndarray
    sections: np.ndarray
    cell_types: np.ndarray
    types: list[str]
    genes: list[str]
    spot_names: list[str]
    cell_names: list[str]
    truth: pd.DataFrame
    truth_mrna: pd.DataFrame
    profiles: np.ndarray
    mrna_content: np.ndarray
    platform_effects: np.ndarray
    parameters: dict[str, Any] = field(default_factory=dict)

    def spatial_frame(self) -> pd.DataFrame:
        """Counts of the spots as a dense table, spots by genes."""
        return pd.DataFrame(self.spots.toarray(), index=self.spot_names, columns=self.genes)

    def reference_frame(self) -> pd.DataFrame:
        """Counts of the reference cells as a dense table, cells by genes."""
        return pd.DataFrame(self.reference.toarray(), index=self.cell_names, columns=self.genes)

    def coordinate_frame(self) -> pd.DataFrame:
        """Coordinates, spots by x, y (and z)."""
        axes = list("xyz"[: self.coordinates.shape[1]])
        return pd.DataFrame(self.coordinates, index=self.spot_names, columns=axes)

    def label_series(self) -> pd.Series:
        """Types of the reference cells, by the cells' names."""
        return pd.Series(self.cell_types, index=self.cell_names, name="celltype")

    def to_anndata(self) -> tuple[AnnData, AnnData]:
        """The spots and the reference as AnnData.

        Returns
        -------
        spots : AnnData, (n_spots, n_genes)
            ``obsm["spatial"]`` holds the coordinates, ``obs["section"]`` the sections.
        reference : AnnData, (n_cells, n_genes)
            ``obs["celltype"]`` holds the types.
        """
        from anndata import AnnData

        section = pd.DataFrame({"section": pd.Categorical(self.sections)}, index=self.spot_names)
        celltype = pd.DataFrame({"celltype": pd.Categorical(self.cell_types)}, index=self.cell_names)
        genes = pd.DataFrame(index=self.genes)
        spots = AnnData(self.spots.copy(), obs=section, var=genes.copy(), obsm={"spatial": self.coordinates.copy()})
        return spots, AnnData(self.reference.copy(), obs=celltype, var=genes.copy())


def simulate(
    n_spots: int = 1000,
    n_genes: int = 500,
    n_types: int = 8,
    *,
    kind: str = "gradients",
    n_domains: int = 6,
    counts_per_spot: float | None = None,
    cells_per_type: int = 60,
    cells_per_spot: float = 10,
    platform_sd: float | None = None,
    mrna_sd: float | None = None,
    n_families: int | None = None,
    doublets: float = 0.0,
    n_sections: int = 1,
    dimensions: int = 2,
    grid: str | None = None,
    seed: int = 0,
    as_anndata: bool = False,
) -> Tissue | tuple[AnnData, AnnData]:
    """Simulate a tissue and its single-cell reference.

    Parameters
    ----------
    n_spots, n_genes, n_types : int >= 1
        Spots of all sections together, genes of both tables, cell types.
    kind : {"gradients", "domains", "none", "bins"}
        How the composition changes over the tissue: smoothly; in sharp domains, each with a dominant type; not with
        place at all; or as in bins of a few micrometres, smooth with local texture and one to a few types a bin.
    n_domains : int >= 1
        Domains of a section (``kind="domains"``).
    counts_per_spot : float > 0, optional
        Mean total counts of a spot. Default 1000; 320 for bins.
    cells_per_type : int >= 1
        Reference cells of each type; for bins the median of log-normal numbers (at least 10).
    cells_per_spot : float > 0
        Mean of the Poisson number of cells in a spot, which is at least 1. Bins have continuous shares instead.
    platform_sd : float >= 0, optional
        Natural-log standard deviation, over genes, of the platform effect. Default 0.3; 0.4 for bins.
    mrna_sd : float >= 0, optional
        Natural-log standard deviation, over types, of the mRNA of a cell. Default 0.3; 0.25 for bins.
    n_families : int from 1 to n_types, optional
        Families of similar types. Default: families of four.
    doublets : float from 0 to 1
        Share of the reference cells that are two cells of different types, labelled as the first.
    n_sections : int from 1 to n_spots
        Sections; each is a tissue of its own with the same types.
    dimensions : {2, 3}
        A section in space has layers at distance 1, one above the other.
    grid : {"hex", "square", "random"}, optional
        How the spots of a layer lie; "random" is uniform with one spot a unit of area (or volume). Default "hex";
        "square" for bins.
    seed : int >= 0
        Of all draws; the same seed gives the same tissue.
    as_anndata : bool
        Return ``Tissue.to_anndata()`` instead.

    Returns
    -------
    Tissue, or (spots, reference) as AnnData

    Raises
    ------
    DataError
        An argument is out of its range.
    DataTypeError
        An argument is of the wrong kind.

    Notes
    -----
    Profiles are a log-normal base times the programme of the family times that of the type. Reference cells have
    negative-binomial counts (dispersion 0.3) and log-normal depth. A spot holds a whole number of cells, drawn from
    the composition at its place; its count of a gene is Poisson with the mean

        depth * platform_effect[gene] * sum over types of cells * mrna_content * profile[gene]

    where the depth is log-normal (sd 0.35) and scaled so that spots have `counts_per_spot` on average. The same seed
    gives the same tissue with the same version of NumPy. With few genes two types of a family can be almost alike.
    """
    p = _checked({name: value for name, value in locals().items() if name != "as_anndata"})
    if not isinstance(as_anndata, bool | np.bool_):
        raise DataTypeError(f"`as_anndata` must be True or False; got {as_anndata!r}.")
    n_spots, n_genes, n_types = p["n_spots"], p["n_genes"], p["n_types"]
    rng = np.random.default_rng(p["seed"])

    profiles = _profiles(rng, n_genes, n_types, p["n_families"])
    mrna_content = rng.lognormal(0, p["mrna_sd"], n_types)
    reference, codes = _reference(rng, profiles, mrna_content, p)

    sizes = [len(part) for part in np.array_split(np.arange(n_spots), p["n_sections"])]
    places = [_places(rng, size, p["dimensions"], p["grid"]) for size in sizes]
    abundance = np.vstack([_abundance(rng, xy, p) for xy in places])

    platform_effects = np.exp(rng.normal(0, p["platform_sd"], n_genes))
    content = profiles * mrna_content[:, None] * platform_effects
    depth = rng.lognormal(-(DEPTH_SD**2) / 2, DEPTH_SD, n_spots) * p["counts_per_spot"]
    depth /= abundance.mean(axis=0) @ content.sum(axis=1)
    spots = _spots(rng, abundance * depth[:, None], content)

    types = _names("type", n_types)
    spot_names = [f"spot_{i}" for i in range(n_spots)]  # as a run calls the rows of an array
    mrna = abundance * mrna_content
    tissue = Tissue(
        spots=spots,
        reference=reference,
        coordinates=np.vstack(places),
        sections=np.repeat(np.array(_names("section", len(sizes)), dtype=object), sizes),
        cell_types=np.array(types, dtype=object)[codes],
        types=types,
        genes=_names("gene", n_genes),
        spot_names=spot_names,
        cell_names=[f"cell_{i}" for i in range(len(codes))],
        truth=pd.DataFrame(abundance / abundance.sum(axis=1, keepdims=True), spot_names, types),
        truth_mrna=pd.DataFrame(mrna / mrna.sum(axis=1, keepdims=True), spot_names, types),
        profiles=profiles,
        mrna_content=mrna_content,
        platform_effects=platform_effects,
        parameters=p,
    )
    return tissue.to_anndata() if as_anndata else tissue


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `simulate` with the defaults filled in; all faults in one message."""
    values = dict(given)
    usual = USUAL_BINS if values["kind"] == "bins" else USUAL
    values.update({name: default for name, default in usual.items() if values[name] is None})
    faults: list[DataError] = []

    def number(name: str, low: float, high: float = math.inf, whole: bool = False, above: bool = False) -> None:
        value = values[name]
        rule = f"be {'a whole number' if whole else 'a number'} " + (
            f"{'>' if above else '>='} {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        )
        if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
            faults.append(DataTypeError(f"`{name}` must {rule}; got {value!r}."))
        elif not (math.isfinite(value) and low <= value <= high) or (above and value == low):
            faults.append(DataError(f"`{name}` must {rule}; got {value!r}."))
        else:
            values[name] = int(value) if whole else float(value)

    for name in ("n_spots", "n_genes", "n_types", "n_domains", "cells_per_type"):
        number(name, 1, whole=True)
    number("seed", 0, whole=True)
    for name in ("counts_per_spot", "cells_per_spot"):
        number(name, 0, above=True)
    for name in ("platform_sd", "mrna_sd"):
        number(name, 0)
    number("doublets", 0, 1)
    for name, options in (("kind", KINDS), ("grid", GRIDS), ("dimensions", (2, 3))):
        if values[name] not in options:
            faults.append(DataError(f"`{name}` must be {' or '.join(map(repr, options))}; got {values[name]!r}."))
    if not faults:
        if values["n_families"] is None:
            values["n_families"] = math.ceil(values["n_types"] / 4)
        number("n_families", 1, values["n_types"], whole=True)
        number("n_sections", 1, values["n_spots"], whole=True)
        if values["doublets"] > 0 and values["n_types"] == 1:
            faults.append(DataError(f"`doublets` must be 0 with one type; got {values['doublets']!r}."))
    raise_faults(faults, "arguments")
    return values


def _profiles(rng: np.random.Generator, n_genes: int, n_types: int, n_families: int) -> np.ndarray:
    """Shares of genes in the mRNA of types: base, programme of the family, programme of the type."""
    base = rng.lognormal(0, 1.6, n_genes)
    family = np.arange(n_types) * n_families // n_types

    def programme(share: float, mean: float, sd: float, rows: int) -> np.ndarray:
        chosen = rng.random((rows, n_genes)) < max(share, 3 / n_genes)
        return np.where(chosen, np.abs(rng.normal(mean, sd, chosen.shape)), 0)

    log_change = programme(0.08, 1.4, 0.7, n_families)[family]
    log_change += programme(0.04, 1.3, 0.7, n_types) - programme(0.04, 0.8, 0.4, n_types)
    profiles = base * np.exp(log_change)
    return profiles / profiles.sum(axis=1, keepdims=True)


def _reference(
    rng: np.random.Generator, profiles: np.ndarray, mrna_content: np.ndarray, p: dict[str, Any]
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Counts of the reference cells, type by type, and the types of the cells."""
    n_types, n_genes = profiles.shape
    sizes = np.full(n_types, p["cells_per_type"])
    if p["kind"] == "bins":
        sizes = np.maximum(10, sizes * rng.lognormal(0, 0.5, n_types)).astype(int)
    codes = np.repeat(np.arange(n_types), sizes)
    depth = rng.lognormal(np.log(CELL_COUNTS * mrna_content[codes]), DEPTH_SD)
    step = max(1, BLOCK // n_genes)
    blocks = []
    for start in range(0, len(codes), step):
        part = slice(start, start + step)
        mean = depth[part, None] * profiles[codes[part]]
        mean *= rng.gamma(1 / DISPERSION, DISPERSION, mean.shape)
        blocks.append(sparse.csr_matrix(rng.poisson(mean).astype(np.int32)))
    cells = sparse.vstack(blocks, format="csr")
    n_doublets = round(p["doublets"] * len(codes))
    if n_doublets:
        first = rng.choice(len(codes), n_doublets, replace=False)
        second = np.array([rng.choice(np.flatnonzero(codes != codes[cell])) for cell in first])
        pairs = sparse.csr_matrix((np.ones(n_doublets, np.int32), (first, second)), shape=(len(codes),) * 2)
        cells = sparse.csr_matrix(cells + pairs @ cells)
    return cells, codes


def _places(rng: np.random.Generator, n_spots: int, dimensions: int, grid: str) -> np.ndarray:
    """Coordinates of the spots of one section; neighbours on a grid are at distance 1."""
    if grid == "random":
        return rng.random((n_spots, dimensions)) * n_spots ** (1 / dimensions)
    height = math.sqrt(3) / 2 if grid == "hex" else 1.0
    n_layers = 1 if dimensions == 2 else max(1, round(n_spots ** (1 / 3)))
    layer, within = np.divmod(np.arange(n_spots), math.ceil(n_spots / n_layers))
    row, column = np.divmod(within, math.ceil(math.sqrt((within.max() + 1) * height)))
    x = column + (row % 2) / 2 if grid == "hex" else column
    return np.column_stack([x, row * height, layer][:dimensions]).astype(np.float64)


def _abundance(rng: np.random.Generator, xy: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    """Types in the spots of one section, (n_spots, n_types): numbers of cells, or shares (bins)."""
    n_spots, n_types = len(xy), p["n_types"]
    if p["kind"] == "bins":
        fields = _fields(rng, xy, n_types)
        fields += rng.normal(0, 0.5, fields.shape)
        shares = _softmax(fields)
        shares[shares < 0.1] = 0
        empty = np.flatnonzero(shares.sum(axis=1) == 0)
        shares[empty, rng.integers(0, n_types, len(empty))] = 1
        return shares / shares.sum(axis=1, keepdims=True)
    if p["kind"] == "gradients":
        shares = _softmax(_fields(rng, xy, n_types))
    elif p["kind"] == "domains":
        centres = xy.min(axis=0) + rng.random((p["n_domains"], xy.shape[1])) * np.ptp(xy, axis=0)
        distance = [((xy - centre) ** 2).sum(axis=1) for centre in centres]
        dominant = np.resize(rng.permutation(n_types), p["n_domains"])
        mixtures = 0.7 * np.eye(n_types)[dominant] + 0.3 * rng.dirichlet(np.full(n_types, 0.5), p["n_domains"])
        shares = mixtures[np.argmin(distance, axis=0)]
    else:
        shares = rng.dirichlet(np.full(n_types, 0.5), n_spots)
    return rng.multinomial(np.maximum(1, rng.poisson(p["cells_per_spot"], n_spots)), shares).astype(np.float64)


def _fields(rng: np.random.Generator, xy: np.ndarray, n_types: int) -> np.ndarray:
    """Smooth random fields (sums of 12 slow cosines) plus a level for each type, (n_spots, n_types)."""
    unit = xy / min(np.ptp(xy, axis=0).max() + 1, 400)  # large tissues have the same texture, not larger patches
    fields = np.empty((len(xy), n_types))
    for k in range(n_types):
        waves, phases = rng.normal(0, 9, (12, xy.shape[1])), rng.uniform(0, 2 * np.pi, 12)
        fields[:, k] = np.cos(unit @ waves.T + phases) @ rng.normal(0, math.sqrt(2 / 12), 12)
    return fields * 2.2 + rng.normal(0, 0.8, n_types)


def _softmax(fields: np.ndarray) -> np.ndarray:
    shares = np.exp(fields - fields.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def _spots(rng: np.random.Generator, amounts: np.ndarray, content: np.ndarray) -> sparse.csr_matrix:
    """Poisson counts with the mean ``amounts @ content``, drawn molecule by molecule: no dense matrix is made."""
    n_types, n_genes = content.shape
    totals = content.sum(axis=1)
    steps = np.cumsum(content, axis=1) / totals[:, None]
    steps[:, -1] = 1
    step = max(1, int(BLOCK / max(1.0, float((amounts @ totals).mean()))))
    blocks = []
    for start in range(0, len(amounts), step):
        drawn = rng.poisson(amounts[start : start + step] * totals)
        spot = np.concatenate([np.repeat(np.arange(len(drawn), dtype=np.int32), drawn[:, k]) for k in range(n_types)])
        gene = np.concatenate(
            [np.searchsorted(steps[k], rng.random(drawn[:, k].sum()), side="right") for k in range(n_types)]
        )
        counts = (np.ones(len(spot), np.int32), (spot, gene.astype(np.int32)))
        blocks.append(sparse.coo_matrix(counts, shape=(len(drawn), n_genes)).tocsr())
    return sparse.vstack(blocks, format="csr")


def _names(word: str, n: int) -> list[str]:
    """Names whose alphabetical order is their order."""
    width = len(str(n - 1))
    return [f"{word}{i:0{width}d}" for i in range(n)]
