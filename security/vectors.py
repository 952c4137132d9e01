"""The figures of the picture fetch and of the fuzzed servers, counted in the report of the tests that show them.

    python -m security.vectors [--slow]

The fast tests fuzz a little; with --slow as much as `make test-slow` does, 10,000 requests to a real worker included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/lambda/test_fetch_vectors.py",
    "tests/lambda/test_fetch_hosts.py",
    "tests/lambda/test_fuzz.py",
    "tests/model/test_inference_fuzz.py",
)


@dataclass(frozen=True)
class Figures:
    """What was tried, and what came of it.

    Attributes:
        vectors: lines of tests/lambda/fetch_vectors.tsv that were tried, by kind.
        blocked: how many of them were refused without a connection to what they aim at.
        hosts: ways in which a host answered badly, slowly or endlessly.
        survived: how many of them ended in the refusal or picture they should, in time and within the byte cap.
        fuzzed: inputs made up by chance that the handler, the fetch guard and the model server answered well.
        failed: names of the tests that failed.
        skipped: names of the tests that were skipped, as where .venv-hosting is not set up.
    """

    vectors: dict[str, int]
    blocked: int
    hosts: int
    survived: int
    fuzzed: int
    failed: list[str]
    skipped: list[str]

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.vectors.items())
        lines = [f"{sum(self.vectors.values())} vectors tried ({kinds}): {self.blocked} blocked"]
        lines += [f"{self.hosts} hostile hosts met: {self.survived} survived"]
        lines += [f"{self.fuzzed} fuzzed inputs answered well"]
        lines += [f"{len(self.skipped)} tests skipped"] if self.skipped else []
        return "\n".join(lines)


def run(slow: bool = False) -> Figures:
    """Run the tests and count.

    Raises RuntimeError, with what pytest said, where it ended without a report of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        chosen = [] if slow else ["-m", "not slow"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--no-header", f"--junitxml={report}", *chosen, *TESTS],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"pytest ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return counted(ElementTree.parse(report).getroot())


def counted(report: ElementTree.Element) -> Figures:
    """The figures in a report as pytest's --junitxml writes it."""
    vectors: dict[str, int] = {}
    blocked, hosts, survived, fuzzed, failed, skipped = 0, 0, 0, 0, [], []
    for case in report.iter("testcase"):
        passed = case.find("failure") is None and case.find("error") is None
        ran = case.find("skipped") is None
        if not passed:
            failed.append(case.get("name"))
        elif not ran:
            skipped.append(case.get("name"))
        for item in case.iter("property"):
            if item.get("name") == "fetch_vector":
                kind = item.get("value")
                vectors[kind] = vectors.get(kind, 0) + 1
                blocked += passed and ran
            elif item.get("name") == "hostile_host":
                hosts += 1
                survived += passed and ran
            elif item.get("name") == "fuzzed_inputs" and passed:
                fuzzed += int(item.get("value"))
    return Figures(vectors, blocked, hosts, survived, fuzzed, failed, skipped)


def report(slow: bool = False) -> list[str]:
    """Prints the figures; returns what does not hold, a line each. Raises as run() does."""
    figures = run(slow)
    print(figures)
    return [f"failed: {name}" for name in figures.failed]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m security.vectors", description=__doc__.splitlines()[0])
    parser.add_argument("--slow", action="store_true", help="fuzz as much as `make test-slow` does")
    failed = report(parser.parse_args().slow)
    for failure in failed:
        print(failure, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
