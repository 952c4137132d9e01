"""`make demo`'s own run, and that it leaves no process behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "demo"


def processes_of_this_checkout() -> set[int]:
    """Ids of the running processes whose command line names this checkout."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(ROOT).encode() in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:  # it ended meanwhile
                continue
    return found


@pytest.mark.slow
def test_the_main_job():
    before = processes_of_this_checkout()
    result = subprocess.run([sys.executable, "-m", "local.demo"], cwd=ROOT, check=False)
    assert result.returncode == 0
    assert processes_of_this_checkout() <= before

    metrics = json.loads((BUILD / "metrics.json").read_text())
    assert metrics["test_accuracy"] >= 0.97
    answer = json.loads((BUILD / "answer.json").read_text())
    assert answer["statusCode"] == 200
    [logits] = json.loads(answer["body"])
    assert len(logits) == 10
    assert all(isinstance(logit, float) for logit in logits)
    for name in ("training-curve.png", "confusion-matrix.png"):
        assert (BUILD / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_folder_that_is_missing_is_refused_by_name():
    command = [sys.executable, "-m", "local.demo", "--data", "no/such/folder"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "no/such/folder" in result.stderr
