"""The pages: they need nothing from elsewhere, say what the simulation says, and their charts show what happened."""

import re
import struct

import numpy as np
import pytest
from matplotlib.figure import Figure

from capacity import configuration, page, plots, prices, profile
from capacity.__main__ import REFERENCE, main
from capacity.bill import MONTH_HOURS, bill, total, usage
from capacity.page import Chart, Table
from capacity.simulation import ANSWERED, FAILED, REFUSED, simulate
from capacity.system import system
from capacity.trace import Trace
from tests.html_page import Page


def assert_stands_alone(source: str) -> Page:
    shown = Page(source)
    for tag, attributes in shown.elements:
        assert tag not in ("script", "link", "iframe", "img", "image")
        for name, value in attributes.items():
            assert not re.search(r"//|@import", value or ""), (tag, name, value)
            if name.endswith("href"):
                assert value.startswith("#")
    assert not re.search(r"@import|url\((?!#)", source)
    names = re.findall(r' id="([^"]+)"', source)
    assert names and len(names) == len(set(names))  # a chart must not be clipped by another's frame
    return shown


@pytest.fixture
def hour(tmp_path):
    path = tmp_path / "hour.csv"
    path.write_text("time,count\n" + "".join(f"{60 * minute},{240 if minute < 30 else 6}\n" for minute in range(60)))
    return path


def png_size(path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:])


def test_simulate_writes_a_page_and_its_picture(capsys, tmp_path, hour):
    path = tmp_path / "page.html"
    arguments = ["simulate", "--trace", str(hour), "--config", str(REFERENCE), "--html", str(path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    source = path.read_text()
    shown = assert_stands_alone(source)
    for row in shown.rows:
        if row[0] in ("p99", "throttled (429)", "instance-hours", "  total"):
            assert re.search(r"^\s*" + r"\s+".join(map(re.escape, map(str.strip, row))) + "$", printed, re.M), row
    for words in ("requests/s", "instances", "ms", "% of requests", "USD an hour", "does not document", "SLO"):
        assert words in shown.text, words
    assert ["autoscaling_max_capacity", "3"] in shown.rows
    # Its colours are the page's, in light and dark.
    assert not set(re.findall(r"#[0-9a-f]{6}", source[source.index("<svg") :])) & {plots.INK, plots.BLUE, plots.RED}
    assert png_size(tmp_path / "page-timeline.png") == (1200, 1140)
    assert {file.name for file in tmp_path.iterdir()} == {"hour.csv", "page.html", "page-timeline.png"}
    first = source
    assert main(arguments) == 0
    assert path.read_text() == first


def test_recommend_writes_a_page_with_the_frontier(capsys, tmp_path, hour):
    path = tmp_path / "page.html"
    assert main(["recommend", "--trace", str(hour), "--slo-p99-ms", "600", "--html", str(path)]) == 0
    variables = capsys.readouterr().out
    shown = assert_stands_alone(path.read_text())
    assert variables.strip() in shown.text
    for words in ("recommended", "configured", "USD a month", "frontier", "Aim: for the least money"):
        assert words in shown.text, words
    assert png_size(tmp_path / "page-frontier.png")[0] == png_size(tmp_path / "page-timeline.png")[0] == 1200


def test_the_course_is_what_happened():
    """A minute of nothing, one that is answered, one of which a part is refused."""
    configured, price_list = configuration.read([REFERENCE]), prices.read()
    arrivals = np.concatenate([60 + np.arange(30) * 2.0, np.full(10, 130.0)])
    trace = Trace("three minutes", arrivals, 180.0)
    stack = system(configured, profile.assumed("ml.m5.xlarge"), "proportional")
    outcome = simulate(trace, np.full(40, 0.1), stack)
    course = plots.series(trace, outcome, configured, price_list)
    assert np.isnan(course.p99[0]) and course.p99[1] == pytest.approx(200)
    assert course.p50[1] == pytest.approx(200)
    assert course.throttled.tolist()[1:] == [0, 50]
    assert np.isnan(course.throttled[0]) and (course.failed[1:] == 0).all()
    # The course's mean is the month's bill.
    month = total(bill(configured, price_list, usage(outcome)))
    assert course.usd_an_hour.mean() * MONTH_HOURS == pytest.approx(month)
    assert {ANSWERED, REFUSED} == set(outcome.status) and FAILED not in outcome.status


def test_what_is_shown_is_escaped_and_any_chart_will_do(tmp_path):
    def draw(figure: Figure) -> None:
        figure.subplots().plot([1, 2], [3, 4], label="<b>")

    chart = Chart("rates", "Rate & latency", "<script>alert(1)</script>", 3.0, draw)
    table = Table("T", [["a", "b"], ["<td>", "&"]])
    written = page.write(tmp_path / "m.html", "<h1>", ["one"], [chart], [table], listing=("L", "x = 1 # <y>"))
    assert [file.name for file in written] == ["m.html", "m-rates.png"]
    shown = assert_stands_alone((tmp_path / "m.html").read_text())
    assert ["<td>", "&"] in shown.rows and "x = 1 # <y>" in shown.text and "<script>alert(1)</script>" in shown.text


def test_a_page_that_cannot_be_written_is_a_mistake(capsys, tmp_path, hour):
    path = tmp_path / "none" / "page.html"
    assert main(["simulate", "--trace", str(hour), "--config", str(REFERENCE), "--html", str(path)]) == 2
    assert f"--html {path}: cannot be written" in capsys.readouterr().err
