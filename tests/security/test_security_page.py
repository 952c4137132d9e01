"""SECURITY.md names tests that exist."""

import re
from pathlib import Path

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
