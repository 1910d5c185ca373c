"""The type level by tiles: the answer of the whole run, the same bits wherever the tiles are solved and however often
the run is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from joblib import parallel_config
from scipy.sparse import csr_matrix

from stdeconv_fast.errors import DataError
from stdeconv_fast.parallel import Workers, hold_workers
from stdeconv_fast.parcels import Reference
from stdeconv_fast.procedures import missing, passes, tile_jobs
from stdeconv_fast.procedures.pieces import Whole
from stdeconv_fast.procedures.tiles import Tiled, cut_tiles, read_blocks
from stdeconv_fast.stages import graph, ingest
from stdeconv_fast.tissue import simulate
from stdeconv_fast.work_folder import WorkFolder

ROOT = Path(__file__).resolve().parent.parent
LIKE_THE_WHOLE = 1e-3  # of a proportion; measured: at most 4.7e-4 (4,000 spots, lambda 200)
PHI, RIDGE = 0.95, 1.0


@cache
def tissue(n_spots=1600):
    return simulate(n_spots, 250, 7, kind="domains", counts_per_spot=250, cells_per_type=25, seed=4)


@cache
def known(n_spots=1600):
    """A reference by hand: mean shares of the cells of each type, drawn a little to their mean."""
    spots = tissue(n_spots)
    cells = spots.reference.toarray() / spots.reference.sum(axis=1)
    labels = np.asarray(spots.cell_types)
    means = np.stack([np.asarray(cells[labels == name]).mean(axis=0) for name in np.unique(labels)])
    profiles = 0.99 * means + 0.01 * means.mean(axis=0)
    n_types, n_genes = profiles.shape
    return Reference(
        profiles, np.ones(n_genes), np.linspace(0.5, 1.0, n_genes), np.arange(n_genes), np.ones(n_types), 0.3, "pooled"
    )


def blocks_of(matrix, usable=None, columns=None):
    """`read_block` over a matrix in memory."""
    usable = np.ones(matrix.shape[0], bool) if usable is None else usable
    columns = np.arange(matrix.shape[1]) if columns is None else columns
    return ingest.reader(ingest.InMemory(matrix), usable, ingest.map_genes(matrix.shape[1], columns))


def in_tiles(folder, matrix, tiles, *, n_jobs=1, dtype=np.float32, size=300, usable=None, columns=None, renumber=None):
    """The counts of a matrix by tiles."""
    n = matrix.shape[0]
    ranges = [(start, min(start + size, n)) for start in range(0, n, size)]
    blocks = read_blocks(folder, ranges, blocks_of(matrix, usable, columns), tiles, n_jobs)
    n_genes = matrix.shape[1] if columns is None else len(columns) if renumber is None else int(renumber.max()) + 1
    return Tiled.from_blocks(folder, ranges, blocks, tiles, n_genes, np.dtype(dtype), n_jobs, renumber)


def tiles_of(n_tiles, n_spots=1600):
    return cut_tiles(tissue(n_spots).coordinates, np.zeros(n_spots, int), np.ones(n_spots, bool), n_tiles)


@cache
def places(n_spots=1600):
    spots = tissue(n_spots)
    keys = graph.spot_keys(spots.coordinates, np.asarray(spots.spots.sum(axis=1)).ravel(), 0)
    with hold_workers(1) as workers:
        return graph.link_spots(spots.coordinates, np.zeros(n_spots, np.int32), 6, keys, workers)


def solve(pieces, lambda_spatial, listen, *, n_spots=1600, loss="poisson", n_iter=4, limit=passes.SETTLED):
    """The type level as the pipeline runs it: abundances and the last graph."""
    with hold_workers(1) as workers:
        pieces.link(places(n_spots))
        pieces.pose(known(n_spots), loss)
        abundances = pieces.solve_alone(RIDGE, passes.ROUGH)
        links = passes.alternate(
            pieces, abundances, places(n_spots), lambda_spatial, PHI, RIDGE, n_iter, listen, workers, limit=limit
        )
    return abundances, links


def run_tiled(path, n_tiles=6, n_jobs=1, n_spots=1600, resume=False, lambda_spatial=100.0):
    """A whole run by tiles in a folder; everything it says, by name."""
    with WorkFolder(path, {"n_tiles": n_tiles}, resume) as folder:
        pieces = in_tiles(folder, tissue(n_spots).spots, tiles_of(n_tiles, n_spots), n_jobs=n_jobs)
        abundances, links = solve(pieces, lambda_spatial, True, n_spots=n_spots, n_iter=3)
        fit, misfit = missing.measure_fit(pieces, known(n_spots), abundances, np.zeros(0))
        errors = pieces.estimate_errors(fit.dispersion, abundances, links, lambda_spatial, RIDGE, None)
        absence = pieces.weigh_absence(fit.dispersion, abundances, links, lambda_spatial, PHI, RIDGE)
    found = {"abundances": abundances, "weights": links.weights, "errors": errors, "absence": absence}
    return found | vars(fit) | {"scores": misfit.scores, "genes": misfit.genes}


@cache
def whole(matrix_of=tissue, dtype="float32"):
    """The counts of all spots, as the whole run holds them."""
    matrix = matrix_of().spots
    blocks = [blocks_of(matrix)(0, matrix.shape[0])]
    return ingest.join_blocks(blocks, matrix.shape[1], None, np.dtype(dtype), Workers(1, None))


def shares(abundances):
    return abundances / abundances.sum(axis=1, keepdims=True)


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run_tiled(tmp_path_factory.mktemp("undisturbed") / "run")


# -- tiles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_tiles", [1, 4, 6, 16, 100])
def test_tiles_are_about_as_many_as_asked_and_lie_together(n_tiles):
    tiles = tiles_of(n_tiles)
    sizes = np.bincount(tiles)
    assert 0.6 * n_tiles <= len(sizes) <= 1.6 * n_tiles
    assert sizes.min() > 0 and sizes.max() <= 1.5 * 1600 / n_tiles
    links = places()
    origins = np.repeat(np.arange(1600), np.diff(links.indptr))
    inside = (tiles[origins] == tiles[links.indices]).mean()
    assert inside > 1 - 3 * np.sqrt(n_tiles / 1600)


def test_tiles_know_sections_and_usable_spots():
    rng = np.random.default_rng(3)
    sections = rng.integers(0, 3, 1600)
    usable = rng.random(1600) < 0.8
    tiles = cut_tiles(tissue().coordinates, sections, usable, 10)
    assert (tiles[~usable] == -1).all()
    assert sorted(np.unique(tiles[usable])) == list(range(tiles.max() + 1))
    for tile in range(tiles.max() + 1):
        assert len(np.unique(sections[tiles == tile])) == 1


def test_the_order_of_the_spots_does_not_change_the_tiles():
    order = np.random.default_rng(5).permutation(1600)
    shuffled = cut_tiles(tissue().coordinates[order], np.zeros(1600, int), np.ones(1600, bool), 16)
    np.testing.assert_array_equal(shuffled, tiles_of(16)[order])


# -- counts ----------------------------------------------------------------------------------------------------------


def odd_counts(kind):
    """A small matrix with rows without counts and counts of one kind."""
    rng = np.random.default_rng(8)
    dense = rng.poisson(0.7, (230, 40)).astype(float)
    dense[::17] = 0
    dense[3, 4] = {"few": 3, "hundreds": 300, "many": 70_000, "fractions": 0.3}[kind]
    return csr_matrix(dense)


@pytest.mark.parametrize("kind", ["few", "hundreds", "many", "fractions"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_counts_come_back_from_the_tiles(tmp_path, kind, dtype):
    matrix = odd_counts(kind)
    n, n_genes = matrix.shape
    rng = np.random.default_rng(9)
    usable = rng.random(n) < 0.9
    tiles = np.where(usable, rng.integers(0, 5, n), -1)
    tiles[tiles == 3] = 2  # a tile without spots
    tiles[tiles == 4] = np.where(matrix.getnnz(axis=1)[tiles == 4] > 0, 2, 4)  # one without counts
    columns = np.delete(np.arange(n_genes), [7, 30])
    kept = np.delete(np.arange(len(columns)), 12)
    dense = matrix.toarray()
    dense[:, columns[12]] = 0
    matrix = csr_matrix(dense)
    renumber = ingest.map_genes(len(columns), kept)
    with WorkFolder(tmp_path / "run", {}) as folder:
        pieces = in_tiles(
            folder, matrix, tiles, dtype=dtype, size=50, usable=usable, columns=columns, renumber=renumber
        )
        assert pieces.n_tiles == 3 and pieces.n_genes == len(kept) == 37
        block = blocks_of(matrix, usable, columns)(0, n)
        expected = ingest.join_blocks([block], len(kept), renumber, np.dtype(dtype), Workers(1, None))
        rows = rng.permutation(pieces.n_spots)
        for taken, part in ((None, expected), (rows[:40], graph.take_spots(expected, rows[:40])), (rows[:0], None)):
            counts = pieces.take(taken)
            assert counts.n_genes == len(kept) and counts.dtype == dtype
            if part is None:
                assert counts.n_spots == 0 and not len(counts.data)
                continue
            for name in ("indptr", "indices", "totals"):
                values = getattr(part, name)
                assert getattr(counts, name).dtype == values.dtype
                np.testing.assert_array_equal(getattr(counts, name), values, err_msg=name)
            np.testing.assert_array_equal(counts.data.astype(dtype), part.data.astype(dtype))
        on_disk = {np.load(file, mmap_mode="r").dtype.name for file in (folder.store / "tiles").glob("*-data.npy")}
        wide = "float32" if dtype == "float32" or kind == "many" else "float64"
        assert on_disk == {"uint8", *{"few": (), "hundreds": ("uint16",)}.get(kind, (wide,))}
        assert not list((folder.store / "blocks").glob("*.npy"))


def test_bad_counts_are_told_and_not_kept(tmp_path):
    matrix = odd_counts("few")
    matrix.data[100] = -1
    with WorkFolder(tmp_path / "run", {}) as folder:
        blocks = read_blocks(folder, [(0, 100), (100, 230)], blocks_of(matrix), np.zeros(230, int), 1)
        assert [block.n_bad for block in blocks] == [1, 0]
        assert blocks[0].bad == 100
        assert [file.name for file in (folder.store / "blocks").glob("*-data.npy")] == ["000001-data.npy"]


# -- the answer of the whole run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["poisson", "gaussian"])
def test_spots_alone_have_the_bits_of_the_whole_run(tmp_path, loss):
    with WorkFolder(tmp_path / "run", {}) as folder, hold_workers(1) as workers:
        pieces = in_tiles(folder, tissue().spots, tiles_of(6))
        plain = Whole(whole(), workers)
        for solver in (pieces, plain):
            solver.pose(known(), loss)
        first, expected = (solver.solve_alone(RIDGE, passes.ROUGH) for solver in (pieces, plain))
        np.testing.assert_array_equal(first, expected)
        for solver, abundances in ((pieces, first), (plain, expected)):
            solver.finish_alone(abundances, RIDGE)
        np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize("n_tiles", [4, 16])
@pytest.mark.parametrize(
    "lambda_spatial, listen, loss",
    [(20.0, False, "poisson"), (20.0, True, "poisson"), (200.0, False, "poisson"), (200.0, True, "poisson"),
     (20.0, True, "gaussian")],
)  # fmt: skip
def test_tiles_find_the_answer_of_the_whole_run(tmp_path, n_tiles, lambda_spatial, listen, loss):
    with hold_workers(1) as workers:
        # settled further than by default, where it is off by as much itself
        expected, _ = solve(Whole(whole(), workers), lambda_spatial, listen, loss=loss, limit=passes.SETTLED / 10)
    with WorkFolder(tmp_path / "run", {}) as folder:
        pieces = in_tiles(folder, tissue().spots, tiles_of(n_tiles))
        found, _ = solve(pieces, lambda_spatial, listen, loss=loss)
    np.testing.assert_allclose(shares(found), shares(expected), rtol=0, atol=LIKE_THE_WHOLE)


def test_fit_and_errors_are_those_of_the_whole_run(tmp_path):
    with WorkFolder(tmp_path / "run", {}) as folder, hold_workers(1) as workers:
        pieces, plain = in_tiles(folder, tissue().spots, tiles_of(6)), Whole(whole(), workers)
        abundances, links = solve(plain, 50.0, True)
        pieces.pose(known(), "poisson")
        direction = missing.find_direction(missing.take_some(plain, known(), abundances, np.zeros(0)), known())
        found, expected = (solver.measure_fit(known(), abundances, direction) for solver in (pieces, plain))
        np.testing.assert_array_equal(found.misfits, expected.misfits)
        np.testing.assert_array_equal(found.deviances, expected.deviances)
        np.testing.assert_array_equal(found.observed, expected.observed)
        np.testing.assert_allclose(found.expected, expected.expected, rtol=1e-12)
        np.testing.assert_allclose(found.dispersion, expected.dispersion, rtol=1e-9)
        content, dispersion = np.linspace(0.5, 1.5, len(known().profiles)), expected.dispersion
        for strength in (0.0, 50.0):
            found, expected = (
                solver.estimate_errors(dispersion, abundances, links, strength, RIDGE, content)
                for solver in (pieces, plain)
            )
            np.testing.assert_allclose(found, expected, rtol=1e-6)  # counts in one byte are multiplied in float32


def test_spots_without_neighbours_and_a_single_tile(tmp_path):
    with WorkFolder(tmp_path / "run", {}) as folder, hold_workers(1) as workers:
        pieces, plain = in_tiles(folder, tissue().spots, np.zeros(1600, int)), Whole(whole(), workers)
        found, _ = solve(pieces, 50.0, False)
        expected, _ = solve(plain, 50.0, False, limit=passes.SETTLED / 10)
    np.testing.assert_allclose(shares(found), shares(expected), rtol=0, atol=LIKE_THE_WHOLE)
    with WorkFolder(tmp_path / "other", {}) as folder:
        pieces = in_tiles(folder, tissue().spots, tiles_of(6))
        pieces.pose(known(), "poisson")
        pieces.link(graph.no_neighbours(1600))
        assert pieces.solve_alone(RIDGE, passes.ROUGH).shape == (1600, 7)


# -- the same bits wherever it runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [2, 4])
def test_threads_change_no_bit(tmp_path, undisturbed, n_jobs):
    assert_same_bits(run_tiled(tmp_path / "run", n_jobs=n_jobs), undisturbed)


def test_loky_changes_no_bit(tmp_path, undisturbed):
    with parallel_config(backend="loky", n_jobs=2):
        assert_same_bits(run_tiled(tmp_path / "run", n_jobs=None), undisturbed)


def kill_during(path, find):
    """Kill a process that `find` gives once the second round of a settling runs; gives the thread that will."""

    def wait_and_kill():
        while not list(path.glob("store/settle-*/0001-*")):
            time.sleep(0.001)
        os.kill(find(), signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def test_dask_changes_no_bit_even_where_a_worker_is_killed(tmp_path, undisturbed):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client, parallel_config(backend="dask"):
        assert_same_bits(run_tiled(tmp_path / "run", n_jobs=None), undisturbed)
        workers = list(client.run(os.getpid).values())
        thread = kill_during(tmp_path / "other", lambda: workers[0])
        assert_same_bits(run_tiled(tmp_path / "other", n_jobs=None), undisturbed)
        thread.join()


def die_once(flag, value):
    """A job whose process is killed the first time."""
    if not os.path.exists(flag):
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": value}


def die(value):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(value):
    raise DataError(f"value must be sound; got {value}.")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_jobs_of_a_lost_worker_run_again(tmp_path):
    with WorkFolder(tmp_path / "run", {}) as folder, parallel_config(backend="loky", n_jobs=2):
        flag = str(tmp_path / "flag")
        tile_jobs.run(folder, "some", die_once, range(6), lambda number: (flag, 10 * number), None)
        assert [int(folder.read(f"some/{number:06d}")["value"]) for number in range(6)] == [0, 10, 20, 30, 40, 50]
        with pytest.raises(RuntimeError, match="terminated"):
            tile_jobs.run(folder, "none", die, range(2), lambda number: (number,), None)


def test_what_a_job_raises_comes_through(tmp_path):
    with WorkFolder(tmp_path / "run", {}) as folder, pytest.raises(DataError, match="must be sound; got 0"):
        tile_jobs.run(folder, "some", fail, [0], lambda number: (number,), 1)


# -- a run that is killed and goes on --------------------------------------------------------------------------------


def test_a_finished_run_is_replayed_without_a_job(tmp_path, undisturbed, monkeypatch):
    run_tiled(tmp_path / "run")
    files = sorted(file for file in (tmp_path / "run").rglob("*") if not file.name.startswith("lock"))
    states = [file for file in files if "settle" in file.parent.name]
    assert 1 <= len(states) <= 3 and {file.name for file in states} == {"state.npz"}  # one for each pass
    calls = []
    numbered = tile_jobs._numbered
    monkeypatch.setattr(tile_jobs, "_numbered", lambda *job: calls.append(job) or numbered(*job))
    assert_same_bits(run_tiled(tmp_path / "run", resume=True), undisturbed)
    assert not calls
    assert files == sorted(file for file in (tmp_path / "run").rglob("*") if not file.name.startswith("lock"))


@pytest.fixture(scope="module")
def jobs_of_a_run(tmp_path_factory):
    """The number of jobs of a run that nothing disturbs."""
    calls, numbered = [], tile_jobs._numbered
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_jobs, "_numbered", lambda *job: calls.append(job) or numbered(*job))
        run_tiled(tmp_path_factory.mktemp("jobs") / "run")
    return len(calls)


@pytest.mark.parametrize("stop", [3, 9, 15, 20, 31])
def test_no_job_that_was_done_is_done_again(tmp_path, undisturbed, monkeypatch, jobs_of_a_run, stop):
    numbered, calls = tile_jobs._numbered, []

    def count(*job):
        if len(calls) == stop and not any(call is None for call in calls):
            calls.append(None)
            raise KeyboardInterrupt
        calls.append(job)
        return numbered(*job)

    monkeypatch.setattr(tile_jobs, "_numbered", count)
    with pytest.raises(KeyboardInterrupt):
        run_tiled(tmp_path / "run")
    assert_same_bits(run_tiled(tmp_path / "run", resume=True), undisturbed)
    assert len(calls) - 1 == jobs_of_a_run


def test_damaged_results_are_made_again(tmp_path, undisturbed):
    run_tiled(tmp_path / "run")
    for pattern in ("alone-*/000002.npz", "settle-*/state.npz", "fit-*/000000.npz", "known/*.npz", "links/*.npz"):
        for file in (tmp_path / "run/store").glob(pattern):
            file.write_bytes(file.read_bytes()[:-7])
    assert_same_bits(run_tiled(tmp_path / "run", resume=True), undisturbed)


def killed_and_resumed(folder, tries):
    """Start a run, kill it after each of `tries`, each time in the same folder; whether it was still at work."""
    at_work = []
    for wait in tries:
        child = os.fork()
        if not child:
            try:
                if isinstance(wait, int):
                    _kill_at(wait)
                run_tiled(folder, n_tiles=5, n_spots=500, resume=True)
            finally:
                os._exit(0)
        if not isinstance(wait, int):
            time.sleep(wait)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        at_work.append(os.WIFSIGNALED(status))
    return at_work


def _kill_at(number):
    """Kill this process at its so-many-th file: even numbers before it has its name, odd ones after."""
    replace, left = os.replace, [number // 2]

    def replace_or_die(*names):
        left[0] -= 1
        if left[0] < 0 and number % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*names)
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_or_die


def _kill_and_resume_many_times(path):
    """Print, for each way to be killed, whether the run was at work then, and that the answer is the same."""
    path.mkdir()
    run_tiled(path / "warm", n_tiles=5, n_spots=500)
    started = time.perf_counter()
    expected = run_tiled(path / "undisturbed", n_tiles=5, n_spots=500)
    seconds = time.perf_counter() - started
    moments = np.random.default_rng(11).permuted(np.linspace(0.02, 0.98, 10)) * seconds
    ways = [[float(moment)] for moment in moments] + [[0, 1, 4, 9, 16, 25, 36, 49, 64, 41, 30, 21, 10, 5, 2]]
    for number, tries in enumerate(ways):
        at_work = killed_and_resumed(path / str(number), tries)
        found = run_tiled(path / str(number), n_tiles=5, n_spots=500, resume=True)
        assert_same_bits(found, expected)
        leftovers = [str(file) for file in (path / str(number)).rglob(".*")]
        print(json.dumps({"tries": tries, "at_work": at_work, "leftovers": leftovers}))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "tests.test_tiles", str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 11
    assert sum(all(way["at_work"]) for way in told[:10]) >= 7  # a fast machine may be done before
    assert sum(told[10]["at_work"]) >= 10
    assert not any(way["leftovers"] for way in told)


if __name__ == "__main__":
    _kill_and_resume_many_times(Path(sys.argv[1]))
