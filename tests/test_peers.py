"""benchmarks/peers.py: its sums, its promises, its files; made-up runs but for two short processes at the end."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("processes are timed with os.wait4", allow_module_level=True)

from benchmarks import peers, peers_data, peers_plot, processes, readme

N = 500_000


def run(tool, number, wall, cpu, peak, status="ok", **more):
    return {"tool": tool, "round": number, "status": status, "wall": wall, "cpu": cpu, "peak_mb": peak, **more}


def rounds(ours=(5.0, 9.0, 1000.0), peer=(21.0, 25.0, 4000.0), status="ok"):
    """A warm-up that must not count, and three rounds around the medians given."""
    runs = []
    for number, extra in enumerate((100.0, -0.5, 0.0, 0.5)):
        runs.append(run(peers.FLOOR, number, 1 + extra, 1 + extra, 200))
        runs.append(run(peers.PEER_FLOOR, number, 1 + extra, 1 + extra, 200))
        seconds = {"tuning": 0.25, "first fit": 1.0, "passes": 1.0, "total": 3 + extra}
        runs.append(run(peers.OURS, number, ours[0] + extra, ours[1] + extra, ours[2], seconds=seconds))
        if status == "ok" or number == 0:
            runs.append(run(peers.PEERS, number, peer[0] + extra, peer[1] + extra, peer[2], status))
        runs.append(run(peers.LINE, number, 6 + extra, 10 + extra, 1100))
    return runs


def entry(kind="hd", n=N, lead=0.05, runs=None, **figures):
    tools, stages = peers.summarise(rounds(**figures) if runs is None else runs)
    scores = {peers.OURS: {"pearson": 0.9 + lead, "rmse": 0.05}, peers.PEERS: {"pearson": 0.9, "rmse": 0.07}}
    for name in list(scores):
        if not peers.good(tools.get(name)):
            del scores[name]
    return {
        "kind": kind, "n": n, "tissue": "made up", "repeats": 3, "tools": tools, "ratios": peers.compare(tools),
        "scores": scores, "stages": stages,
    }  # fmt: skip


def broken(one) -> list[str]:
    return [text for text, holds in peers.judge(one) if not holds]


# -- sums ------------------------------------------------------------------------------------------------------------


def test_medians_leave_the_warm_up_out_and_floors_are_subtracted():
    tools, stages = peers.summarise(rounds())
    assert tools[peers.OURS]["wall"] == 5 and tools[peers.OURS]["runs"] == 3
    assert tools[peers.OURS]["wall_above"] == 4 and tools[peers.OURS]["cpu_above"] == 8
    assert tools[peers.PEERS]["wall_above"] == 20 and tools[peers.LINE]["wall_above"] == 5
    assert "wall_above" not in tools[peers.FLOOR]
    assert stages["total"] == 3  # of the run with the median wall


def test_ratios():
    ratios = peers.compare(peers.summarise(rounds())[0])
    assert ratios == {"wall_above": 5, "cpu_above": 3, "wall": 21 / 5, "memory": 0.25}


def test_each_tool_has_the_floor_of_its_own_environment():
    runs = rounds()
    for one in runs:
        if one["tool"] == peers.PEER_FLOOR:
            one["wall"] += 2
    tools, _ = peers.summarise(runs)
    assert tools[peers.PEERS]["wall_above"] == 18 and tools[peers.OURS]["wall_above"] == 4


def test_below_the_floor_there_is_no_ratio():
    ratios = peers.compare(peers.summarise(rounds(ours=(0.75, 0.75, 200)))[0])
    assert ratios["wall_above"] is None and ratios["wall"] == 28


# -- promises --------------------------------------------------------------------------------------------------------


def test_promises_that_hold():
    assert broken(entry()) == []
    assert len(peers.judge(entry())) == 4  # wall, CPU, memory, Pearson


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"peer": (16.5, 25.0, 4000.0)}, "wall above the floor"),
        ({"peer": (21.0, 24.0, 4000.0)}, "CPU above the floor"),
        ({"ours": (5.0, 9.0, 1900.0)}, "peak memory"),
        ({"lead": -0.01}, "Pearson"),
    ],
)
def test_a_broken_promise_is_named(figures, said):
    (text,) = broken(entry(**figures))
    assert said in text and "500,000" in text


@pytest.mark.parametrize(
    ("n", "wall", "holds"),
    [
        (99_999, 6.0, True), (100_000, 10.9, False), (100_000, 11.1, True), (499_999, 11.1, True), (N, 11.1, False),
        (999_999, 17.1, True), (1_000_000, 24.9, False), (1_000_000, 25.1, True), (2_000_000, 24.9, False),
    ],
)  # fmt: skip
def test_sizes_between_have_the_rule_of_the_next_smaller(n, wall, holds):
    assert (broken(entry(n=n, peer=(wall, 100.0, 4000.0))) == []) == holds


def test_a_million_bins_stay_under_five_gigabytes():
    fine, large = (5e9 / processes.MB + extra for extra in (-1, 1))
    peer = (100.0, 100.0, 40_000.0)
    assert broken(entry(n=1_000_000, ours=(5.0, 9.0, fine), peer=peer)) == []
    assert "under 5 GB" in broken(entry(n=1_000_000, ours=(5.0, 9.0, large), peer=peer))[0]


def test_deep_spots_have_promises_of_their_own():
    assert broken(entry("visium", 4000, peer=(5.5, 9.0, 900.0))) == []
    assert "whole wall" in broken(entry("visium", 4000, peer=(4.5, 9.0, 900.0)))[0]
    slow = entry("visium", 4000)
    slow["stages"]["tuning"] = 2.1
    assert "tuning" in broken(slow)[0]


def test_where_the_peer_fails_the_promises_hold():
    one = entry(status="time limit of 5 s")
    assert one["tools"][peers.PEERS]["status"] == "time limit of 5 s"
    assert set(one["ratios"].values()) == {None}
    assert broken(one) == [] and all("ours did not" in text for text, _ in peers.judge(one))


def test_where_ours_fails_they_do_not():
    runs = [one for one in rounds(status="exit code 1") if one["tool"] != peers.OURS]
    runs.append(run(peers.OURS, 0, 3.0, 3.0, 100, "killed by SIGKILL"))
    one = entry(runs=runs)
    assert len(broken(one)) == len(peers.judge(one)) == 5
    assert "killed by SIGKILL" in peers.told(one)


def test_a_fault_in_a_later_round_counts():
    runs = [*rounds(), run(peers.PEERS, 4, 1.0, 1.0, 10, "exit code 1")]
    assert peers.summarise(runs)[0][peers.PEERS]["status"] == "exit code 1"


def test_without_the_peer_only_our_own_promises_are_judged():
    runs = [one for one in rounds() if one["tool"] not in (peers.PEERS, peers.PEER_FLOOR)]
    assert peers.judge(entry(runs=runs)) == []
    assert len(peers.judge(entry(n=1_000_000, runs=runs))) == 1
    failed = [run(peers.FLOOR, 1, 1.0, 1.0, 100), run(peers.OURS, 0, 3.0, 3.0, 100, "exit code 1")]
    assert len(broken(entry(n=500, runs=failed))) == 1


# -- what is written -------------------------------------------------------------------------------------------------


def test_entries_are_merged_by_kind_and_size(tmp_path):
    old = [{"kind": "hd", "n": 5, "tag": 1}, {"kind": "visium", "n": 5, "tag": 1}]
    new = [{"kind": "hd", "n": 3, "tag": 2}, {"kind": "hd", "n": 5, "tag": 2}]
    merged = peers.merge(old, new)
    assert [(one["kind"], one["n"], one["tag"]) for one in merged] == [("hd", 3, 2), ("hd", 5, 2), ("visium", 5, 1)]
    assert peers.load(tmp_path / "none.json") == []


def test_the_printed_table():
    text = peers.told(entry())
    assert "hd, 500,000 spots" in text and "wall above the floor 5.00" in text and "tuning 0.25" in text
    assert "0.9500" in text
    json.dumps(entry(), allow_nan=False)


def test_the_table_of_the_readme(monkeypatch):
    entries = [entry(), entry(n=1_000_000, status="time limit of 5 s"), entry("visium", 4000)]
    monkeypatch.setattr(readme, "_load", lambda name: entries)
    lines = readme.peers().splitlines()
    assert lines[2] == "| bins, 320 counts | 500,000 | 5.0 | 21.0 | 5.0 | 3.0 | 1,000 | 4,000 | 0.950 / 0.900 |"
    assert "| failed | - | - | 1,000 | - | 0.950 / - |" in lines[3]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("kinds", [("hd",), ("hd", "visium")])
def test_the_picture(tmp_path, kinds):
    entries = [entry(kind, n) for kind in kinds for n in (100_000, N)]
    entries.append(entry(n=1_000_000, status="time limit of 5 s"))
    (tmp_path / "peers.json").write_text(json.dumps(entries))
    file = tmp_path / "peers.png"
    assert peers.main(["--only-plot", "--json", str(tmp_path / "peers.json"), "--plot", str(file)]) == 0
    header = file.read_bytes()[:24]
    assert header[1:4] == b"PNG" and int.from_bytes(header[16:20], "big") == 1000


def test_what_the_picture_shows():
    entries = [entry(n=1_000_000, status="time limit of 5 s"), entry()]
    assert peers_plot.series(entries, "hd", "ours", "wall") == [(N, 5), (1_000_000, 5)]
    assert peers_plot.series(entries, "hd", "flashdeconv", "wall_above") == [(N, 20)]
    assert peers_plot.failures(entries, "hd", "flashdeconv") == [(1_000_000, "time limit of 5 s")]
    assert [peers_plot.short(n) for n in (500, 4000, 12_345, N, 1_500_000)] == ["500", "4k", "12,345", "500k", "1.5M"]
    assert peers_plot.ticks(0.9, 60) == pytest.approx([1, 2, 5, 10, 20, 50])
    assert peers_plot.ticks(1.6, 4.5) == pytest.approx([2, 3, 4])
    assert peers_plot.ticks(0.9, 2000) == pytest.approx([1, 10, 100, 1000])


# -- options and processes -------------------------------------------------------------------------------------------


def test_options():
    options = peers.parse(["--sizes", "10", "20", "--kind", "visium", "--no-peer"])
    assert options.sizes == [10, 20] and options.no_peer and options.repeats == 3 and options.limit == 1800


@pytest.mark.parametrize("given", [["--only-plot"], ["--repeats", "0"], ["--simulator", "nowhere.py"]])
def test_options_that_make_no_sense(given, capsys):
    with pytest.raises(SystemExit):
        peers.parse(given)
    assert "error" in capsys.readouterr().err


def python(text, folder, **more):
    return processes.time_process([sys.executable, "-S", "-c", text], folder, **more)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_and_cpu_of_children_count(tmp_path):
    child = "import time; a = bytearray(100 << 20); s = time.process_time()\nwhile time.process_time() < s + .3: pass"
    text = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {child!r}])"
    used = python(text, tmp_path)
    assert used["status"] == "ok" and used["wall"] > 0.3 and used["cpu"] > 0.3
    assert used["tree_mb"] > 100 and used["peak_mb"] == max(used["tree_mb"], used["maxrss_mb"])


def test_a_process_that_fails_has_a_status(tmp_path):
    assert python("raise SystemExit('no such thing')", tmp_path)["status"] == "exit code 1: no such thing"
    assert python("import os; os.kill(os.getpid(), 9)", tmp_path)["status"] == "killed by SIGKILL (out of memory?)"
    used = python("import time; time.sleep(60)", tmp_path, limit=0.2)
    assert used["status"] == "time limit of 0.2 s" and used["wall"] < 10


def test_a_tissue_is_made_once_and_by_the_script_given(tmp_path):
    script = tmp_path / "maker.py"
    script.write_text(
        "import sys, pathlib\nfor name in ('st.h5ad', 'sc.h5ad', 'truth.csv'):\n"
        "    pathlib.Path(sys.argv[1], name).write_text(' '.join(sys.argv[2:]))\n"
    )
    home, maker = peers_data.find_tissue(tmp_path / "kept", "hd", 7, script)
    assert home == tmp_path / "kept" / "hd-7" and (home / "st.h5ad").read_text() == "--n 7 --kind hd"
    assert maker == "maker.py --n 7 --kind hd"
    script.unlink()
    assert peers_data.find_tissue(tmp_path / "kept", "hd", 7, None) == (home, maker)
    (home / "made_by.txt").unlink()
    assert "not noted" in peers_data.find_tissue(tmp_path / "kept", "hd", 7, None)[1]


@pytest.mark.slow
def test_the_whole_way_without_the_peer(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peers, "usual_simulator", lambda: None)
    file = tmp_path / "peers.json"
    given = ["--sizes", "500", "--no-peer", "--repeats", "1", "--tissue", str(tmp_path / "kept"), "--json", str(file)]
    assert peers.main(given) == 0
    assert "stdeconv_fast.simulate, kind hd" in capsys.readouterr().out
    (one,) = json.loads(file.read_text())
    assert {"numba", "numpy", "stdeconv_fast"} <= set(one["versions"]["ours"]) and one["machine"]["cores"] >= 1
    assert one["tools"]["ours"]["status"] == one["tools"]["ours, command line"]["status"] == "ok"
    assert one["tools"]["floor"]["peak_mb"] > 20
    assert one["scores"]["ours"]["pearson"] > 0.8 and one["stages"]["total"] > 0
    assert {run["round"] for run in one["runs"]} == {0, 1}
    assert all(math.isfinite(run["wall"]) for run in one["runs"])
