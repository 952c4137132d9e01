"""Only what a test has shown is counted as blocked or answered."""

from xml.etree import ElementTree

import pytest

from security import summary, tested, vectors
from security.__main__ import main

REPORT = """
<testsuites><testsuite>
  <testcase name="a"><properties><property name="fetch_vector" value="url"/></properties></testcase>
  <testcase name="b"><properties><property name="fetch_vector" value="url"/></properties><failure/></testcase>
  <testcase name="c"><properties><property name="fetch_vector" value="address"/></properties><error/></testcase>
  <testcase name="d"><properties><property name="fetch_vector" value="address"/></properties><skipped/></testcase>
  <testcase name="e"><properties><property name="fuzzed_inputs" value="300"/></properties></testcase>
  <testcase name="f"><properties><property name="fuzzed_inputs" value="50"/></properties><failure/></testcase>
  <testcase name="g"><properties><property name="hostile_host" value="slow"/></properties></testcase>
  <testcase name="h"><properties><property name="hostile_host" value="cut"/></properties><failure/></testcase>
  <testcase name="i"><properties><property name="fault" value="i"/></properties></testcase>
  <testcase name="j"><properties><property name="fault" value="j"/></properties><skipped/></testcase>
  <testcase name="k"><properties><property name="scan" value='{"kind": "plan", "passed": 9, "failed": 0,
    "skipped": 2, "checkov_version": "3"}'/></properties></testcase>
  <testcase name="l"><properties><property name="scan" value='{"kind": "source", "passed": 7, "failed": 0,
    "skipped": 1, "checkov_version": "3"}'/></properties></testcase>
</testsuite></testsuites>
"""


def test_what_failed_or_was_skipped_is_neither_blocked_nor_answered_nor_survived(capsys):
    figures = tested.counted([ElementTree.fromstring(REPORT)])
    failed = ["failed: b", "failed: c", "failed: f", "failed: h"]
    assert vectors.report(figures=figures) == summary.faults(figures=figures) == summary.scans(figures) == failed
    assert capsys.readouterr().out.splitlines() == [
        "4 vectors tried (2 url, 2 address): 1 blocked",
        "2 hostile hosts met: 1 survived",
        "300 fuzzed inputs answered well",
        "2 tests skipped: d, j",
        "2 faults made: 1 survived",
        "1 scans of the source: 7 checks passed, 0 failed, 1 skipped at most",
        "1 scans of the plan: 9 checks passed, 0 failed, 2 skipped at most",
        "checkov 3",
    ]


def test_what_was_not_tried_at_all_holds_nothing():
    nothing = tested.Figures()
    tried = ["scan of the source", "scan of the plan", "vector", "hostile host", "fuzzed input", "fault"]
    assert summary.scans(nothing) + vectors.report(figures=nothing) + summary.faults(figures=nothing) == [
        f"not tried: no {what}" for what in tried
    ]


def test_all_figures_are_one_table_and_every_failure_stands_once(tmp_path, monkeypatch, capsys):
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    monkeypatch.setattr("security.roles.report", lambda calls: print("7 roles") or ["matrix: a row"])
    monkeypatch.setattr("security.supply.report", lambda: print("9 locks") or [])
    assert main(["all", "--calls", str(report), "--reports", str(report)]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [*(f"failed: {name}" for name in "bcfh"), "matrix: a row"]
    lines = printed.out.splitlines()
    assert lines[:2] == ["| what | figures |", "| --- | --- |"]
    assert {"| roles | 7 roles |", "| faults | 2 faults made: 1 survived |", "| supply | 9 locks |"} <= set(lines)


@pytest.mark.parametrize("text", [None, "<testsuites>"])
def test_a_report_that_is_none_is_named(tmp_path, capsys, text):
    report = tmp_path / "report.xml"
    if text:
        report.write_text(text)
    assert main(["all", "--calls", __file__, "--reports", str(report)]) == 2
    assert "no report of pytest's" in capsys.readouterr().err
