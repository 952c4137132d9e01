"""The table of a run: what was measured on both sides, what was promised, and whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev

from bench.rounds import Seconds

HEADINGS = ("measured", "ours", "reference", "times as fast (rounds)", "in CPU seconds", "hold (aim)", "verdict")


@dataclass(frozen=True)
class Row:
    """One line of the table, as text. verdict is empty where nothing was promised."""

    measured: str
    ours: str
    reference: str = ""
    ratio: str = ""
    cpu_ratio: str = ""
    hold: str = ""
    verdict: str = ""

    def cells(self) -> tuple[str, ...]:
        """In the order of HEADINGS."""
        return (self.measured, self.ours, self.reference, self.ratio, self.cpu_ratio, self.hold, self.verdict)


def compared(
    measured: str,
    ours: Sequence[Seconds],
    reference: Sequence[Seconds],
    promised: tuple[float, float] | None = None,
    *,
    pictures: int | None = None,
) -> Row:
    """Both sides' seconds, one item a round: the median of the rounds' ratios against `promised`, (hold, aim).

    pictures: that each side worked through; the cells then tell pictures a second instead of seconds.
    """
    ratios = [theirs.wall / own.wall for own, theirs in zip(ours, reference, strict=True)]
    cpu = median(theirs.cpu / own.cpu for own, theirs in zip(ours, reference, strict=True))
    ratio = median(ratios)
    return Row(
        measured,
        _side(ours, pictures),
        _side(reference, pictures),
        f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{cpu:.2f}",
        "{:g} ({:g})".format(*promised) if promised else "",
        _verdict(ratio >= promised[0]) if promised else "",
    )


def limited(measured: str, value: float, limit: float, unit: str = "", aim: float | None = None) -> Row:
    """A figure that must stay below `limit`."""
    hold = f"below {limit:.3g}{unit}" + (f" ({aim:g})" if aim else "")
    return Row(measured, f"{value:.3g}{unit}", hold=hold, verdict=_verdict(value < limit))


def at_most(
    measured: str,
    ours: Sequence[float],
    reference: Sequence[float],
    promised: tuple[float, float] | None = None,
    unit: str = "",
) -> Row:
    """Two figures that are better low, one item a round: the median of the ratios against `promised`, (hold, aim)."""
    ratios = [own / theirs for own, theirs in zip(ours, reference, strict=True)]
    ratio = median(ratios)
    return Row(
        measured,
        f"{median(ours):.3g}{unit}",
        f"{median(reference):.3g}{unit}",
        f"{ratio:.3f} of it ({min(ratios):.3f} to {max(ratios):.3f})",
        hold="at most {:g} ({:g})".format(*promised) if promised else "",
        verdict=_verdict(ratio <= promised[0]) if promised else "",
    )


def agreeing(measured: str, ours: Sequence[float], reference: Sequence[float]) -> Row:
    """Two shares, each of several seeds: equal within noise where their means are nearer than either one's spread."""
    noise = max(stdev(ours), stdev(reference))
    return Row(
        measured,
        f"{mean(ours):.2%} ± {stdev(ours):.2%}",
        f"{mean(reference):.2%} ± {stdev(reference):.2%}",
        hold="equal within ±",
        verdict=_verdict(abs(mean(ours) - mean(reference)) <= noise),
    )


def _verdict(held: bool) -> str:
    return "held" if held else "fell short"


def _side(seconds: Sequence[Seconds], pictures: int | None) -> str:
    wall, cpu = median(each.wall for each in seconds), median(each.cpu for each in seconds)
    return f"{pictures / wall:.1f}/s, CPU {cpu:.1f} s" if pictures else f"{wall:.1f} s, CPU {cpu:.1f} s"


def text(rows: Sequence[Row]) -> str:
    """A Markdown table with its columns under one another."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
