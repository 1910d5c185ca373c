"""The parts of the benchmark scripts that judge: what they promise, count and tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import calibration, cold_start, missing_types, plots, robustness, roofline, widths

ROOT = Path(__file__).resolve().parent.parent


def row(n_types, kept, total, first):
    return {
        "n_spots": 1000, "n_types": n_types, "n_genes": 500, "n_genes_used": 500, "kept_non_zeros": kept,
        "lambda_spatial": 50.0, "seconds": {"first fit": first, "total": total},
    }  # fmt: skip


def test_widths_keep_their_promise_or_not():
    rows = [row(10, 100, 1.0, 0.5), row(20, 100, 5.1, 2.5), row(50, 100, 6.0, 23.0)]
    found = widths.judge(rows, "types")
    assert [verdict["ok"] for verdict in found] == [True, False]  # the first fit grows 9.2 times, 8.1 are allowed
    assert found[0]["limit"] == pytest.approx(5.2) and found[0]["ratio"] == pytest.approx(5.1)
    assert found[1]["limit"] == pytest.approx(1.3 * 6.25) and found[1]["ratio"] == pytest.approx(9.2)
    rows = [row(20, 100, 1.0, 0.5), row(20, 150, 1.9, 0.6), row(20, 120, 2.4, 0.7), row(20, 120, 3.2, 0.8)]
    found = widths.judge(rows, "genes")
    assert [verdict["ok"] for verdict in found] == [True, True, False]  # fewer non-zeros: 1.3 times is allowed
    lines = widths.told(rows, found).splitlines()
    assert len(lines) == 5 and lines[2].endswith("ok") and lines[4].endswith("FAILED")
    assert widths.judge(rows[:1], "types") == []


def test_the_least_work_of_a_run():
    sizes = roofline.Sizes(
        n_spots=2000, n_types=10, non_zeros=50_000, reference_non_zeros=10_000, bytes_each=8, kept=40_000,
        step=1e6, edges=12_000, tried=9, smoothed=True,
    )  # fmt: skip
    work = roofline.least_work(sizes)
    assert work["input"] == (480_000, 0)
    assert work["reference"] == (80_000, 20_000)
    assert work["counts"] == (8 * 50_000 + 3 * 40_000, 40_000)
    assert work["first fit"] == (3 * 40_000 + 4 * 20_000, 1e6)
    assert work["tuning"] == (3 * 40_000 * 0.5 * 10, 0.5 * 10 * 1e6)  # half of the spots, nine strengths and none
    assert work["passes"] == (120_000 + 160_000 + 336_000, 1e6 + 840_000)
    alone = roofline.least_work(roofline.Sizes(2000, 10, 50_000, 10_000, 8, 40_000, 1e6, 12_000, 0, False))
    assert alone["passes"] == (0, 0) and alone["fit"] == work["fit"]
    seconds = {"input": 0.001, "first fit": 0.01, "other": 0.0, "total": 0.011}
    rows = {found["stage"]: found for found in roofline.judge(seconds, work, (1e9, 1e10))}
    assert rows["input"]["gb_s"] == pytest.approx(0.48) and rows["input"]["of_bandwidth"] == pytest.approx(0.48)
    assert rows["first fit"]["gflop_s"] == pytest.approx(0.1)
    assert rows["first fit"]["of_arithmetic"] == pytest.approx(0.01)
    assert rows["other"]["bytes"] == 0 and rows["other"]["of_arithmetic"] == 0
    assert rows["total"]["bytes"] == sum(moved for moved, _ in work.values())
    assert len(roofline.told(list(rows.values())).splitlines()) == 5


def test_cold_starts_are_summed_up():
    rows = [
        cold_start.summarise("run", [(3.0, 2.0), (1.0, 0.5), (2.0, 1.0)]),
        cold_start.summarise("help", [(0.1, None), (0.3, None), (0.2, None)]),
    ]
    assert [(r["seconds"], r["in_deconvolve"]) for r in rows] == [(2.0, 1.0), (0.2, None)]
    text = cold_start.told(rows)
    assert "2.00" in text and "1.00" in text and "None" not in text


def test_a_cold_start_is_timed_from_outside(tmp_path):
    code = "import os; print(os.environ['NUMBA_CACHE_DIR'])"
    seconds, said = cold_start.timed((sys.executable, "-c", code), tmp_path)
    assert 0 < seconds < 10 and said.strip() == str(tmp_path)


def test_every_level_of_robustness_is_judged(tmp_path):
    rows = [
        {"set": name, "kind": kind, "level": level, "method": method, "pearson": pearson}
        for name, shift in (("one", 0.1), ("two", -0.1))
        for kind, level in robustness.cases()
        for method, pearson in ((robustness.OURS, 0.9 + shift), ("NNLS", 0.8 + shift))
    ]
    table = pd.DataFrame(rows)
    judged = robustness.judge(table)
    assert len(judged) == 16 and (judged["ours first"] == "ok").all()  # four kinds, level 0 in each of them
    assert judged[robustness.OURS].tolist() == pytest.approx([0.9] * 16)
    bad = (table["kind"] == "depth") & (table["level"] == 0.6) & (table["method"] == "NNLS")
    table.loc[bad, "pearson"] += 0.1
    judged = robustness.judge(table)["ours first"]
    assert judged[judged == "NOT"].index.tolist() == [("depth", 0.6)]  # a tie is not the highest
    robustness.draw(table, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


KERNELS = """
from benchmarks import bench_kernels
bench_kernels.N_SPOTS = 1200  # from 1,000 spots on a grid is looked for
cases = bench_kernels.Kernels()
cases.setup(cases.setup_cache())  # which runs every case once

from stdeconv_fast.cli.warmup import list_kernels
names = [kernel.__name__ for kernel in list_kernels() if not kernel.signatures]
print(*[name for name in names if not name.startswith("_")])
"""


def test_every_kernel_has_a_case():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KERNELS], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip(), f"benchmarks/bench_kernels.py has no case for {done.stdout}"


def test_promises_of_calibration_and_missing_types():
    rows = [
        {"case": "the model holds", "counts": 300, "share above": 0.05, "share to": 1.0, "coverage": 0.9,
         "false discoveries": 0.01},
        {"case": "the model holds", "counts": 300, "share above": 0.05, "share to": 0.1, "coverage": 0.96},
        {"case": "a type missing", "counts": 300, "share above": 0.05, "share to": 1.0, "coverage": 0.5,
         "false discoveries": 0.5},
    ]  # fmt: skip
    assert [holds for _, holds in calibration.judge(pd.DataFrame(rows))] == [True, True]
    rows[0] |= {"coverage": 0.96, "false discoveries": 0.1}
    assert [holds for _, holds in calibration.judge(pd.DataFrame(rows))] == [False, False]
    assert calibration.find_outside(pd.DataFrame(rows[1:])) == [
        "300 counts, share 0.05 to 0.1: 90 % intervals cover 96.0%"
    ]
    table = pd.DataFrame({
        "set": ["a", "a", "b"], "ours": [0.9, 0.7, 0.4], "flashdeconv": [0.5, 0.6, 0.6],
        "flashdeconv, pooled": [0.6, 0.4, 0.5],
    })  # fmt: skip
    told = {"a": {"whole reference warned": True}, "b": {"whole reference warned": False}}
    assert [holds for _, holds in missing_types.judge(table, told)] == [True, True, False]
    truth = pd.DataFrame({"here": [0.5] * 20 + [0.0] * 20, "everywhere": 0.5, "nowhere": 0.0, "new": 0.3})
    chosen, passed = missing_types.choose_types(truth, pd.Series(["here", "everywhere", "nowhere"]))
    assert chosen == ["here"] and set(passed) == {"everywhere", "nowhere", "new"}
    assert missing_types.measure_auroc(np.array([3.0, 1.0, 2.0, 2.0]), np.array([True, False, True, False])) == 0.875


def test_every_figure_that_is_timed_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "N_TYPES", 4)
    monkeypatch.setattr(plots, "LAYOUTS", ("grid",))
    rows = pd.DataFrame(plots.measure(400, tmp_path, 1))
    assert len(list(tmp_path.glob("grid_*.png"))) == len(rows) == 8
    assert (rows["bins"] == 400).all() and rows["limit"].isna().tolist() == [False] * 7 + [True]
