"""The type level a tile at a time: counts in a work folder, tiles solved as jobs with their neighbours held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..draws import keys_of
from ..parallel import Workers, hold_workers
from ..parcels import Counts, Graph, Reference
from ..stages import graph, solve_types
from ..stages.ingest import NARROW, Block
from ..work_folder import WorkFolder, digest
from . import tile_jobs, uncertainty

MOST_ROUNDS = 200  # of one settling
TIGHT = 0.25  # of the limit: what is left in rounds adds up over the tissue, and the whole run leaves some too
EARLY, LOOSE = 0.1, 10.0  # a round need not go below this part of the largest debt, nor stay above so many limits
ALONE = Workers(1, None)  # what is left to do here, between rounds


def cut_tiles(
    coordinates: np.ndarray, sections: np.ndarray, usable: np.ndarray, n_tiles: int, seed: int = 0
) -> np.ndarray:
    """Tile of each spot, (n_spots,) int64, -1 where it is not usable; spots of one tile lie together in one section.

    Sections are halved along their longer side until no tile has more than 1.5 times the mean: about `n_tiles`, and
    at least one a section. The order of the spots does not matter, but for spots at one place.
    """
    tiles, found = np.full(len(coordinates), -1, dtype=np.int64), 0
    most = 1.5 * max(usable.sum() / n_tiles, 1.0)
    for section in np.unique(sections[usable]):
        members = np.flatnonzero(usable & (sections == section))
        here = np.asarray(coordinates[members], dtype=np.float64)
        tiles[members] = found + graph.halve(here, np.ones(len(members)), keys_of(seed, *here.T), most)
        found = tiles[members].max() + 1
    return tiles


def read_blocks(
    folder: WorkFolder,
    ranges: list[tuple[int, int]],
    read_block: Callable[[int, int], Block],
    tiles: np.ndarray,
    n_jobs: int | None,
    room: str = "blocks",
) -> list[Block]:
    """Read the counts of all spots, each range a job; their entries go to the folder, grouped by tile.

    Parameters
    ----------
    folder : WorkFolder
    ranges : list of (start, stop)
        Ranges of rows that follow one another.
    read_block : callable
        As `stages.ingest.reader` makes it; may be handed to other processes.
    tiles : (n_rows,) int
        Tile of each row, as `cut_tiles` gives it.
    n_jobs : int or None
        As joblib takes it.
    room : str
        Where the entries go: another one for another choice of genes.

    Returns
    -------
    list of Block
        Without their entries (`indices`, `data`). Where `n_bad` is not 0 none were kept: the run cannot go on.
    """
    place = str(folder.room(room))

    def arguments(number: int) -> tuple:
        start, stop = ranges[number]
        return place, number, read_block, start, stop, tiles[start:stop]

    tile_jobs.run(folder, room, tile_jobs.read_range, range(len(ranges)), arguments, n_jobs)
    names = (tile_jobs.name_of(room, number) for number in range(len(ranges)))
    return [tile_jobs.read_rest(folder.read(name)) for name in names]


class Tiled:
    """The counts of all spots in a work folder, by tiles; what needs them runs as jobs. See `pieces.Whole`.

    Results do not hang on the number of workers, nor on where or in what order they run. What has been done is kept
    in the folder under a name made of all that it was made from, and is not done again.

    Parameters
    ----------
    folder : WorkFolder
    tiles : (n_spots,) int
        Tile of each spot, from 0, none empty.
    lengths : (n_spots,) int
        Entries of each spot.
    totals : (n_spots,) float
        Counts of each spot over the kept genes, in the working dtype.
    n_genes : int
    n_jobs : int or None
        As joblib takes it.

    Attributes
    ----------
    n_spots, n_genes, n_tiles : int
    totals : (n_spots,) float
    dtype : dtype
    """

    def __init__(
        self, folder: WorkFolder, tiles: np.ndarray, lengths: np.ndarray, totals: np.ndarray, n_genes: int,
        n_jobs: int | None,
    ) -> None:  # fmt: skip
        self.folder, self.totals, self.n_genes = folder, totals, n_genes
        self.n_spots, self.n_tiles, self.dtype = len(tiles), int(tiles.max()) + 1, totals.dtype
        self._n_jobs, self._tiles, self._lengths = n_jobs, tiles, lengths
        order = np.argsort(tiles, kind="stable")
        self._rows = np.split(order, np.cumsum(np.bincount(tiles))[:-1])
        self._place = np.empty(self.n_spots, dtype=np.int64)  # of each spot in its tile
        for rows in self._rows:
            self._place[rows] = np.arange(len(rows))
        self._posed = tile_jobs.Posed(str(folder.store), "", "")
        self.device = "cpu"  # of the jobs
        self._halos: list[np.ndarray] = []
        self._across: tuple[np.ndarray, ...] = ()

    @classmethod
    def from_blocks(
        cls,
        folder: WorkFolder,
        ranges: list[tuple[int, int]],
        blocks: list[Block],
        tiles: np.ndarray,
        n_genes: int,
        dtype: np.dtype,
        n_jobs: int | None,
        renumber: np.ndarray | None = None,
        room: str = "blocks",
    ) -> Tiled:
        """Bring the entries that `read_blocks` wrote together tile by tile, then remove them.

        Rows without counts are left out.

        Parameters
        ----------
        folder, ranges, tiles, n_jobs, room
            As for `read_blocks`.
        blocks : list of Block
            What it gave.
        n_genes : int
            Genes kept.
        dtype : dtype
            Working dtype.
        renumber : (n_candidates,) int, optional
            Position among the kept genes of each gene that could have been kept; by default they are the same.
        """
        lengths = np.concatenate([block.lengths for block in blocks])
        totals = np.concatenate([block.totals for block in blocks])
        filled = totals > 0
        numbers, short = np.unique(tiles[filled], return_inverse=True)
        made = cls(folder, short, lengths[filled], totals[filled].astype(dtype), n_genes, n_jobs)
        if folder.has("tiles/done"):
            return made
        pieces = tile_jobs.find_pieces(ranges, tiles, lengths)
        pieces = pieces[pieces[:, 2] < pieces[:, 3]]
        starts = np.searchsorted(pieces[:, 0], numbers)
        of_tile = np.split(pieces[:, 1:], starts[1:])
        source = str(folder.room(room))
        folder.room("tiles")

        def arguments(tile: int) -> tuple:
            rows = made._rows[tile]
            return source, made._posed.store, tile, of_tile[tile], made._lengths[rows], made.totals[rows], renumber

        tile_jobs.run(folder, "tiles", tile_jobs.join_tile, range(made.n_tiles), arguments, n_jobs, sync=True)
        folder.write("tiles/done", sync=True, n_genes=n_genes)
        for name in {"blocks", room}:
            folder.remove(name, lambda stem: stem.endswith(tile_jobs.ENTRIES))
        return made

    def take(self, rows: np.ndarray | None) -> Counts:
        """Counts of some spots in memory, in the order of `rows`; None: all."""
        rows = np.arange(self.n_spots) if rows is None else np.asarray(rows)
        lengths = self._lengths[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        indices = np.empty(indptr[-1], dtype=np.uint16 if self.n_genes <= NARROW else np.int32)
        data = np.empty(indptr[-1], dtype=np.uint16)
        tiles = self._tiles[rows]
        order = np.argsort(tiles, kind="stable")
        for here in np.split(order, np.flatnonzero(np.diff(tiles[order])) + 1) if len(rows) else ():
            counts = tile_jobs.open_counts(self._posed.store, int(tiles[here[0]]), self.n_genes)
            part = graph.take_spots(counts, self._place[rows[here]])
            at = tile_jobs.places(indptr[here], lengths[here])
            if part.data.dtype.kind == "f" and data.dtype.kind == "u":
                data = data.astype(self.dtype)
            indices[at], data[at] = part.indices, part.data
        return Counts(indptr, indices, data, self.totals[rows], self.n_genes)

    def held(self, rows: np.ndarray | None) -> Counts:
        """As `take`: a sum over some spots is the host's."""
        return self.take(rows)

    def pose(self, known: Reference, loss: str) -> None:
        """Solve against this reference from now on."""
        name = f"known/{digest(*vars(known).items())}"
        if self.folder.read(name) is None:
            tile_jobs.write_reference(self.folder, name, known)
        none = np.zeros(0, np.int32)
        median = np.array([np.median(self.totals)], dtype=self.dtype)
        one = Counts(np.zeros(2, np.int64), none, none.astype(np.uint16), median, self.n_genes)
        with hold_workers(1):
            unit = solve_types.pose(one, known, loss).unit
        self._posed = tile_jobs.Posed(self._posed.store, name, loss, unit, self.device)

    def link(self, places: Graph) -> Graph:
        """Cut the graph by tiles: what each tile must know of it, and the edges that lead from one to another."""
        origins = np.repeat(np.arange(self.n_spots), np.diff(places.indptr))
        across = np.flatnonzero(self._tiles[origins] != self._tiles[places.indices])
        # the halo of a tile: the spots at the far ends of the edges that lead out of it
        pairs = self._tiles[origins[across]] * self.n_spots + places.indices[across]
        halos, which = np.unique(pairs, return_inverse=True)
        starts = np.searchsorted(halos, np.arange(self.n_tiles + 1) * self.n_spots)
        self._halos = [halos[a:b] % self.n_spots for a, b in zip(starts[:-1], starts[1:], strict=True)]
        local = self._place[places.indices].astype(np.int32)
        tile = halos // self.n_spots
        sizes = np.bincount(self._tiles)
        local[across] = (sizes[tile] + np.arange(len(halos)) - starts[tile])[which]
        ends = np.concatenate([[0], np.cumsum(np.bincount(origins[across], minlength=self.n_spots))]).astype(np.int64)
        self._across = (ends, places.indices[across], across)
        colours = np.empty(self.n_spots, dtype=np.int32)
        for number, members in enumerate(places.colours):
            colours[members] = number
        for tile, rows in enumerate(self._rows):
            lengths = np.diff(places.indptr)[rows]
            self.folder.write(
                f"links/{tile:06d}", indptr=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
                indices=local[self._edges(places, tile)], colour=colours[rows],
            )  # fmt: skip
        return places

    def _edges(self, links: Graph, tile: int) -> np.ndarray:
        """Edges of the spots of a tile, spot by spot."""
        rows = self._rows[tile]
        return tile_jobs.places(links.indptr[rows], links.indptr[rows + 1] - links.indptr[rows])

    def solve_alone(self, lambda_ridge: float, tolerance: float) -> np.ndarray:
        """Abundances, (n_spots, n_types), of each spot without its neighbours, from an even start."""
        return self._alone(None, lambda_ridge, tolerance)

    def finish_alone(self, abundances: np.ndarray, lambda_ridge: float) -> None:
        """Solve every spot alone to the end, from a start near it; updates `abundances` in place."""
        abundances[:] = self._alone(abundances, lambda_ridge, solve_types.TOLERANCE)

    def _alone(self, abundances: np.ndarray | None, *numbers: float) -> np.ndarray:
        numbers = tuple(map(float, numbers))

        def arguments(tile: int) -> tuple:
            start = None if abundances is None else abundances[self._rows[tile]]
            return self._posed, tile, start, *numbers

        rounds = self._each("alone", tile_jobs.solve_tile, arguments, abundances, *numbers)
        return self._lay_out((rows, found["abundances"]) for rows, found in rounds)

    def _name(self, *made_from: Any) -> str:
        """Name of a result by all that it is made from."""
        return digest(self._posed.known, self._posed.loss, *made_from)

    def _each(
        self, name: str, job: Callable[..., Any], arguments: Callable[[int], tuple], *made_from: Any
    ) -> Iterator[tuple[np.ndarray, tile_jobs.Arrays]]:
        """One round over all tiles; the rows of each tile and what its job says, in the order of the tiles."""
        room = f"{name}-{self._name(*made_from)}"
        tile_jobs.run(self.folder, room, job, range(self.n_tiles), arguments, self._n_jobs)
        for tile, rows in enumerate(self._rows):
            yield rows, self.folder.read(tile_jobs.name_of(room, tile))

    def _lay_out(self, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Values of the spots of each tile as one array over all spots."""
        values = None
        for rows, part in parts:
            values = np.empty((self.n_spots, *part.shape[1:]), part.dtype) if values is None else values
            values[rows] = part
        return values

    def settle(
        self, abundances: np.ndarray, links: Graph, lambda_spatial: float, phi: float, lambda_ridge: float,
        owed: np.ndarray, relax: float, limit: float, few: float = 0.0, early: float = 1.0, most: int = MOST_ROUNDS,
    ) -> float:  # fmt: skip
        """Settle the tiles, round by round, until no spot is far from its answer; see `passes.settle`.

        In a round each tile with a spot that owes more than `limit` is settled while the spots around it are held;
        then every spot owes what the moves of its neighbours in other tiles mean. Updates `abundances` and `owed`.
        The limit is `TIGHT` times the one that is asked for, more in the first rounds.

        Parameters
        ----------
        few, early : float
            As in `passes.settle`.
        most : int
            Rounds.
        """
        strengths = (float(lambda_spatial), float(phi), float(lambda_ridge))
        tight, early = TIGHT * float(limit), float(early)
        numbers = (*strengths, float(relax), tight, float(few), early, most)
        room = f"settle-{self._name(abundances, links.weights, owed, *numbers)}"
        relaxed, turn, done, visited = np.full(self.n_tiles, float(relax)), 0, False, 0
        saved = self.folder.read(f"{room}/state")
        if saved is not None:
            abundances[:], owed[:], relaxed = saved["abundances"], saved["owed"], saved["relaxed"]
            turn, done = int(saved["turn"]), bool(saved["done"])

        def arguments(tile: int) -> tuple:
            rows = self._rows[tile]
            around = abundances[np.concatenate([rows, self._halos[tile]])]
            weights = links.weights[self._edges(links, tile)]
            degrees, start = links.degrees[rows], float(relaxed[tile])
            return self._posed, tile, around, weights, degrees, owed[rows], start, strengths, enough

        while not done:
            limit = tight * early if relaxed.max() == 1.0 else tight
            due = self._tiles[owed > limit]
            done = len(due) <= few * self.n_spots or turn == most
            due = np.unique(due)
            enough = max(limit, min(EARLY * float(owed.max()), LOOSE * limit))
            if done or visited >= self.n_spots:  # the rounds since the last state are worth one
                self._save(room, turn, done=done, abundances=abundances, owed=owed, relaxed=relaxed)
                visited = 0
            if done:
                break
            here, due = f"{room}/{turn:04d}", [int(tile) for tile in due]
            tile_jobs.run(self.folder, here, tile_jobs.settle_tile, due, arguments, self._n_jobs)
            moves = np.zeros(self.n_spots, dtype=abundances.dtype)
            for tile in due:
                rows, found = self._rows[tile], self.folder.read(tile_jobs.name_of(here, tile))
                moves[rows] = np.abs(found["abundances"] - abundances[rows]).max(axis=1)
                abundances[rows], owed[rows], relaxed[tile] = (found[key] for key in ("abundances", "owed", "relax"))
                visited += len(rows)
            self._owe_across(links, moves, strengths, owed)
            turn += 1
        return float(relaxed.max())

    def _save(self, room: str, turn: int, **state: Any) -> None:
        """Keep the state before a round, and let the rounds before it go."""
        self.folder.write(f"{room}/state", sync=True, turn=turn, **state)
        self.folder.remove(room, lambda stem: stem[0].isdigit() and int(stem[:4]) < turn)

    def _owe_across(self, links: Graph, moves: np.ndarray, strengths: tuple, owed: np.ndarray) -> None:
        """Add what the moves of neighbours in other tiles mean to what each spot owes."""
        ends, indices, edges = self._across
        none = np.zeros(0)
        across = Graph(ends, indices, none.astype(np.int64), none, links.weights[edges], links.degrees, ())
        still = np.zeros(self.n_spots, dtype=bool)
        solve_types.owe_moves(across, solve_types.rank(across), moves, still, *strengths, 1.0, owed, ALONE)

    def measure_fit(
        self, known: Reference, abundances: np.ndarray, direction: uncertainty.Direction
    ) -> uncertainty.Fit:
        """See `uncertainty.measure_fit`; `known` is what was posed."""

        def arguments(tile: int) -> tuple:
            return self._posed, tile, abundances[self._rows[tile]], direction

        deviances, misfits = np.empty(self.n_spots), np.empty(self.n_spots)
        sums = np.zeros((3, self.n_genes))
        for rows, found in self._each("fit", tile_jobs.fit_tile, arguments, abundances, *vars(direction).values()):
            deviances[rows], misfits[rows] = found["deviances"], found["misfits"]
            sums += found["observed"], found["expected"], found["dispersion"] * len(rows)
        return uncertainty.Fit(deviances, sums[0], sums[1], sums[2] / self.n_spots, misfits)

    def estimate_errors(
        self, dispersion: np.ndarray, abundances: np.ndarray, links: Graph, lambda_spatial: float,
        lambda_ridge: float, mrna_content: np.ndarray | None,
    ) -> np.ndarray:  # fmt: skip
        """See `uncertainty.estimate_errors`."""
        numbers = (float(lambda_spatial), float(lambda_ridge), mrna_content, dispersion)
        by_spot = abundances, self._degrees(links, lambda_spatial)
        return self._by_spot("errors", tile_jobs.errors_tile, by_spot, numbers)

    def weigh_absence(
        self, dispersion: np.ndarray, abundances: np.ndarray, links: Graph, lambda_spatial: float, phi: float,
        lambda_ridge: float,
    ) -> np.ndarray:  # fmt: skip
        """See `uncertainty.weigh_absence`."""
        pulls = uncertainty.pull(abundances, links, lambda_spatial, phi, ALONE)
        numbers = (float(lambda_spatial), float(lambda_ridge), dispersion)
        by_spot = abundances, self._degrees(links, lambda_spatial), pulls
        return self._by_spot("absence", tile_jobs.absence_tile, by_spot, numbers)

    def _degrees(self, links: Graph, lambda_spatial: float) -> np.ndarray:
        return links.degrees if lambda_spatial > 0 else np.zeros(self.n_spots)  # without smoothing none were made

    def _by_spot(
        self, name: str, job: Callable[..., Any], by_spot: tuple[np.ndarray, ...], more: tuple
    ) -> np.ndarray:
        """What a job says of each spot under its name, from arrays over the spots and what all tiles share."""

        def arguments(tile: int) -> tuple:
            return self._posed, tile, *(values[self._rows[tile]] for values in by_spot), *more

        rounds = self._each(name, job, arguments, *by_spot, *more)
        return self._lay_out((rows, found[name]) for rows, found in rounds)
