"""What the tests show, counted in pytest's reports of them: only what a test has shown counts as held."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Figures:
    """What was tried, and what came of it.

    Attributes:
        vectors: lines of tests/lambda/fetch_vectors.tsv that were tried, by kind.
        blocked: how many of them were refused without a connection to what they aim at.
        hosts: ways in which a host answered badly, slowly or endlessly.
        survived: how many of them ended in the refusal or picture they should, in time and within the byte cap.
        fuzzed: inputs made up by chance that the handler, the fetch guard and the model server answered well.
        faults: tests in which something fails on purpose.
        borne: how many of them what stands around survived, and said so.
        scans: checkov's summary of each scan, and its kind: source or plan.
        failed: names of the tests that failed.
        skipped: names of the tests that were skipped, as where .venv-hosting is not set up.
    """

    vectors: dict[str, int] = field(default_factory=dict)
    blocked: int = 0
    hosts: int = 0
    survived: int = 0
    fuzzed: int = 0
    faults: int = 0
    borne: int = 0
    scans: list[dict] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def run(*arguments: str) -> ElementTree.Element:
    """pytest's report of the chosen tests.

    Raises RuntimeError, with what pytest said, where it ended without a report of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--no-header", f"--junitxml={report}", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"pytest ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return ElementTree.parse(report).getroot()


def read(reports: Sequence[Path]) -> list[ElementTree.Element]:
    """Reports as pytest's --junitxml wrote them. Raises ValueError for a file that is none."""
    try:
        return [ElementTree.parse(report).getroot() for report in reports]
    except (OSError, ElementTree.ParseError) as error:
        raise ValueError(f"no report of pytest's: {error}") from error


def counted(reports: Iterable[ElementTree.Element]) -> Figures:
    """The figures of all the tests in some reports."""
    figures = Figures()
    for case in (case for report in reports for case in report.iter("testcase")):
        passed = case.find("failure") is None and case.find("error") is None
        ran = case.find("skipped") is None
        properties = [(item.get("name"), item.get("value")) for item in case.iter("property")]
        if not passed:
            figures.failed.append(case.get("name"))
        elif not ran:
            figures.skipped.append(case.get("name"))
        for name, value in properties:
            _count(figures, name, value, passed and ran)
    return figures


def _count(figures: Figures, name: str, value: str, held: bool) -> None:
    match name:
        case "fetch_vector":
            figures.vectors[value] = figures.vectors.get(value, 0) + 1
            figures.blocked += held
        case "hostile_host":
            figures.hosts += 1
            figures.survived += held
        case "fuzzed_inputs" if held:
            figures.fuzzed += int(value)
        case "fault":
            figures.faults += 1
            figures.borne += held
        case "scan":
            figures.scans.append(json.loads(value))


def none_of(counts: Mapping[str, int]) -> list[str]:
    """What was not tried at all, as in a report of other tests: it shows nothing, and must not look like a success."""
    return [f"not tried: no {what}" for what, count in counts.items() if not count]
