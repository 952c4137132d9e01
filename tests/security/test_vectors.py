"""Only what a test has shown is counted as blocked or answered."""

from xml.etree import ElementTree

from security import vectors

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
</testsuite></testsuites>
"""


def test_what_failed_or_was_skipped_is_neither_blocked_nor_answered():
    figures = vectors.counted(ElementTree.fromstring(REPORT))
    assert figures == vectors.Figures({"url": 2, "address": 2}, 1, 2, 1, 300, ["b", "c", "f", "h"], ["d"])
    assert str(figures).splitlines() == [
        "4 vectors tried (2 url, 2 address): 1 blocked",
        "2 hostile hosts met: 1 survived",
        "300 fuzzed inputs answered well",
        "1 tests skipped",
    ]
