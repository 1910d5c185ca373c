"""The picture of benchmarks/results/peers.json: time and memory against the number of spots, both tools."""

from __future__ import annotations

from pathlib import Path

# of the palette of Okabe and Ito, told apart with any colour vision; markers differ too
LOOKS = {"ours": ("#0072B2", "o"), "flashdeconv": ("#D55E00", "s")}
GREY = "#666666"
KINDS = {"hd": "low-count bins (320 counts)", "visium": "spots (5,000 counts)"}
STEPS = {"few": (1,), "usual": (1, 2, 5), "many": (1, 1.5, 2, 3, 4, 5, 6, 8)}


def series(entries: list[dict], kind: str, tool: str, key: str) -> list[tuple[int, float]]:
    """(spots, figure) of one tool in the order of size, without what failed or was not measured."""
    found = []
    for entry in sorted(entries, key=lambda entry: entry["n"]):
        row = entry["tools"].get(tool)
        if entry["kind"] == kind and row and row["status"] == "ok" and (row.get(key) or 0) > 0:
            found.append((entry["n"], row[key]))
    return found


def failures(entries: list[dict], kind: str, tool: str) -> list[tuple[int, str]]:
    """(spots, status) where a tool failed."""
    rows = [(entry["n"], entry["tools"].get(tool)) for entry in entries if entry["kind"] == kind]
    return [(n, row["status"]) for n, row in rows if row and row["status"] != "ok"]


def short(n: int) -> str:
    """A number of spots in few letters: 4k, 500k, 1M."""
    for unit, letter in ((1_000_000, "M"), (1000, "k")):
        if n >= unit and n % (unit // 10) == 0:
            return f"{n / unit:g}{letter}"
    return f"{n:,}"


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within a range; more where those are under three, fewer where over eight."""

    def within(steps: str) -> list[float]:
        marks = [step * 10.0**power for power in range(-3, 10) for step in STEPS[steps]]
        return [mark for mark in marks if low <= mark <= high]

    marks = within("usual")
    return within("many") if len(marks) < 3 else within("few") if len(marks) > 8 else marks


def plot(entries: list[dict], file: str | Path) -> None:
    """Draw wall time (whole, and above the floor) and peak memory, one row of panels a kind of tissue."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    kinds = [kind for kind in KINDS if any(entry["kind"] == kind for entry in entries)]
    if not kinds:
        raise SystemExit("there is nothing to draw: no entries")
    figure, axes = plt.subplots(
        len(kinds), 2, figsize=(10, 4.1 * len(kinds) + 0.5), dpi=100, squeeze=False, layout="constrained"
    )
    for (times, memory), kind in zip(axes, kinds, strict=True):
        for tool, (colour, marker) in LOOKS.items():
            look = {"color": colour, "marker": marker, "linewidth": 2, "markersize": 7}
            _line(times, series(entries, kind, tool, "wall"), **look)
            _line(times, series(entries, kind, tool, "wall_above"), **look, linestyle="--", markerfacecolor="white")
            _line(memory, series(entries, kind, tool, "peak_mb"), **look)
        floor = series(entries, kind, "floor", "peak_mb")
        _line(memory, floor, color=GREY, linestyle=":", linewidth=2, marker="D", markersize=4)
        times.set_title(f"Wall time, {KINDS[kind]}", fontsize=13, loc="left")
        memory.set_title(f"Peak memory, {KINDS[kind]}", fontsize=13, loc="left")
        times.set_ylabel("seconds", fontsize=12)
        memory.set_ylabel("MB", fontsize=12)
        for axis in (times, memory):
            _dress(
                axis, [entry["n"] for entry in entries if entry["kind"] == kind], "bins" if kind == "hd" else "spots"
            )
        for number, (n, status) in enumerate(failures(entries, kind, "flashdeconv")):
            text = f"flashdeconv at {short(n)}: {status[:34]}"
            times.text(0.99, 0.03 + 0.07 * number, text, color=LOOKS["flashdeconv"][0], fontsize=10, ha="right",
                       transform=times.transAxes)  # fmt: skip
    handles = [Line2D([], [], color=c, marker=m, linewidth=2, label=tool) for tool, (c, m) in LOOKS.items()]
    handles += [
        Line2D([], [], color=GREY, linewidth=2, label="whole process"),
        Line2D([], [], color=GREY, linewidth=2, linestyle="--", label="above the floor"),
        Line2D(
            [],
            [],
            color=GREY,
            linewidth=2,
            linestyle=":",
            marker="D",
            markersize=4,
            label="floor: read and write alone",
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=11, frameon=False)
    figure.savefig(file)
    plt.close(figure)


def _line(axis, points: list[tuple[int, float]], **look) -> None:
    if points:
        axis.plot(*zip(*points, strict=True), **look)


def _dress(axis, sizes: list[int], unit: str) -> None:
    """Logarithmic axes with plain numbers, a mark at every size measured."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_xscale("log")
    axis.set_yscale("log")
    sizes = sorted(set(sizes))
    low, high = axis.get_ylim()
    axis.set_ylim(low / 1.2, high * 1.2)
    if len(sizes) == 1:
        axis.set_xlim(sizes[0] / 2, sizes[0] * 2)
    marks = ticks(*axis.get_ylim())
    labels = [short(n) for n in sizes], [f"{mark:,.10g}" for mark in marks]
    for side, values, names in zip((axis.xaxis, axis.yaxis), (sizes, marks), labels, strict=True):
        side.set_major_locator(FixedLocator(values))
        side.set_minor_locator(NullLocator())
        side.set_major_formatter(FixedFormatter(names))
    axis.tick_params(labelsize=11)
    axis.set_xlabel(unit, fontsize=12)
    axis.grid(color="#DDDDDD", linewidth=0.8)
    axis.set_axisbelow(True)
    for name in ("top", "right"):
        axis.spines[name].set_visible(False)
