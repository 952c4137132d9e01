"""The table's arithmetic and its verdicts."""

from __future__ import annotations

from bench.rounds import Seconds
from bench.table import HEADINGS, Row, agreeing, at_most, compared, limited, text


def seconds(*walls: float) -> list[Seconds]:
    return [Seconds(wall, 2 * wall) for wall in walls]


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    # The slow round slowed both sides; the ratio of medians would be 30 / 10.
    row = compared("work", seconds(10, 100, 5), seconds(20, 200, 30), (2, 3))
    assert row.ratio == "2.00 (2.00 to 6.00)"
    assert row.cpu_ratio == "2.00"
    assert (row.hold, row.verdict) == ("2 (3)", "held")


def test_below_the_hold_it_fell_short():
    assert compared("work", seconds(10), seconds(19), (2, 3)).verdict == "fell short"


def test_nothing_promised_nothing_judged():
    row = compared("work", seconds(10), seconds(20))
    assert (row.hold, row.verdict) == ("", "")


def test_with_pictures_the_sides_are_speeds():
    row = compared("work", seconds(2), seconds(4), pictures=100)
    assert row.ours.startswith("50.0/s") and row.reference.startswith("25.0/s")


def test_a_limit_itself_is_too_much():
    assert [limited("memory", value, 3, " GB").verdict for value in (2.9, 3, 3.1)] == [
        "held",
        "fell short",
        "fell short",
    ]


def test_a_limit_names_its_aim():
    assert limited("memory", 290, 350, " MB", aim=250).hold == "below 350 MB (250)"


def test_at_most_is_of_the_median_ratio_and_the_limit_itself_holds():
    row = at_most("p50", [11, 90, 23], [10, 60, 20], (1.15, 1.08), " ms")
    assert (row.ratio, row.ours, row.reference) == ("1.150 of it (1.100 to 1.500)", "23 ms", "20 ms")
    assert (row.hold, row.verdict) == ("at most 1.15 (1.08)", "held")
    assert at_most("p50", [12], [10], (1.15, 1.08)).verdict == "fell short"
    assert at_most("p50", [12], [10]).verdict == ""


def test_means_agree_within_the_larger_spread():
    assert agreeing("accuracy", [0.90, 0.94], [0.92, 0.92]).verdict == "held"
    assert agreeing("accuracy", [0.80, 0.81], [0.92, 0.92]).verdict == "fell short"


def test_columns_stand_under_one_another():
    lines = text([Row("a", "1"), Row("a longer one", "2", verdict="held")]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(HEADINGS)
    assert all(line.count("|") == len(HEADINGS) + 1 for line in lines)
