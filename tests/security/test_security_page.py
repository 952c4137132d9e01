"""SECURITY.md names tests that exist, and security/README.md commands."""

import re
from pathlib import Path

import pytest

from security.__main__ import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()


def test_every_boundary_names_tests_that_exist():
    boundaries = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][2:]
    assert len(boundaries) >= 10
    for boundary, *_, tests in boundaries:
        named = re.findall(r"`([\w/.]+)::(\w+)`", tests)
        assert named and len(named) == tests.count("::"), boundary
        for file, name in named:
            if file.endswith(".hcl"):
                assert f'run "{name}" {{' in (ROOT / "terraform" / "tests" / file).read_text(), name
            else:
                assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), name


def test_every_command_that_is_named_is_one(capsys):
    pages = PAGE + (ROOT / "security" / "README.md").read_text() + (ROOT / "README.md").read_text()
    table = pages.partition("| `python -m security` |")[2].partition("\n\n")[0]
    named = {*re.findall(r"python -m security ([\w-]+)", pages), *re.findall(r"(?m)^\| `([\w-]+)", table)}
    assert {"roles", "scans", "vectors", "faults", "supply", "deployer-policy", "record-deployer"} <= named
    for command in named:
        with pytest.raises(SystemExit) as left:
            main([command, "--help"])
        assert left.value.code == 0, command
    assert not re.findall(r"python -m security\.\w+", pages)
