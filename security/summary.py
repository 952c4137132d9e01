"""`python -m security all`: every figure as one table, and the commands that print a part of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from security.tested import Figures, counted, none_of, read, run

SCANS = "tests/terraform/test_scan.py"


def scans(figures: Figures | None = None) -> list[str]:
    """Prints the figures of checkov's scans; returns what does not hold, a line each."""
    figures = figures or counted([run(SCANS)])
    missing = []
    for kind in ("source", "plan"):
        of_kind = [scan for scan in figures.scans if scan["kind"] == kind]
        passed, failed = (sum(scan[key] for scan in of_kind) for key in ("passed", "failed"))
        skipped = max((scan["skipped"] for scan in of_kind), default=0)
        print(f"{len(of_kind)} scans of the {kind}: {passed} checks passed, {failed} failed, {skipped} skipped at most")
        missing += none_of({f"scan of the {kind}": len(of_kind)})
    print(f"checkov {', '.join(sorted({scan['checkov_version'] for scan in figures.scans})) or 'has not run'}")
    return [f"failed: {name}" for name in figures.failed] + missing


def faults(slow: bool = False, figures: Figures | None = None) -> list[str]:
    """Prints the figures of the tests in which something fails; returns what does not hold, a line each."""
    figures = figures or counted([run("-m", "fault" if slow else "fault and not slow")])
    print(f"{figures.faults} faults made: {figures.borne} survived")
    return [f"failed: {name}" for name in figures.failed] + none_of({"fault": figures.faults})


def everything(calls: Path, slow: bool, reports: Sequence[Path]) -> list[str]:
    """Prints one table of all figures; returns what does not hold, a line each.

    calls: as roles.report() takes them. slow: as `make test-slow` does. reports: pytest's, of a run of all tests; what
    they show is then not run again.
    """
    # Each takes a second to import.
    from security import roles, supply, vectors

    figures = counted(read(reports)) if reports else None
    sections: dict[str, Callable[[], list[str]]] = {
        "scans": lambda: scans(figures),
        "roles": lambda: roles.report(calls),
        "fetch": lambda: vectors.report(slow, figures),
        "faults": lambda: faults(slow, figures),
        "supply": supply.report,
    }
    failed, rows = [], []
    for name, report in sections.items():
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            failed += report()
        rows += [(name, line) for line in printed.getvalue().splitlines()]
    print("| what | figures |\n| --- | --- |")
    for name, line in rows:
        print(f"| {name} | {line} |")
    return list(dict.fromkeys(failed))  # a report of all tests is read by three sections
