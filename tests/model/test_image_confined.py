"""The hosting image's own test, against this checkout's server in namespaces instead of a container.

There may be no container engine here: namespace_engine.py stands in for docker. What it shows of the server holds in a
container too; of the image itself it shows nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
HOSTING_PYTHON = PROJECT / ".venv-hosting" / "bin" / "python"
PROGRAMS = ("ip", "nsenter", "setpriv", "unshare")


def namespaces_work() -> bool:
    if not all(map(shutil.which, PROGRAMS)):
        return False
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "setpriv", "--reuid=999", "--clear-groups", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HOSTING_PYTHON.exists(), reason="no .venv-hosting: run make setup"),
    pytest.mark.skipif(not namespaces_work(), reason="this user may not make namespaces and become another in them"),
]


@pytest.fixture
def image_test(trained, textures, tmp_path):
    """Runs the test on the stand-in; its result."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").symlink_to(Path(__file__).with_name("namespace_engine.py"))
    state = tmp_path / "state"
    state.mkdir()
    for folder in (state, *list(state.parents)[:3]):  # pytest's folders are its user's alone
        folder.chmod(0o755)

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        picture = next(textures.rglob("*.jpg"))
        script = PROJECT / "model" / "container" / "test" / "image.py"
        command = [sys.executable, script, "stand-in", "--archive", trained.archive, "--picture", picture]
        path = os.pathsep.join([str(tmp_path / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]])
        variables = {"PATH": path, "STATE": str(state), "HOSTING_PYTHON": str(HOSTING_PYTHON), **environment}
        result = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
        assert not running_in(state), "a process of the container is left"
        return result

    return run


def running_in(state: Path) -> list[str]:
    """The processes that have a folder of this container mounted."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            if str(state) in entry.read_text():
                found.append(entry.parent.name)
        except OSError:  # it ended meanwhile
            continue
    return found


def test_the_server_answers_unprivileged_read_only_and_alone_and_ends_on_term(image_test):
    result = image_test()
    assert result.returncode == 0, result.stderr
    assert "user 999, no network, read-only root; ready after" in result.stdout
    assert "3 logits" in result.stdout and "status 0" in result.stdout


@pytest.mark.parametrize(
    ("loose", "said"),
    [
        ("user", "the container runs as root"),
        ("read-only", "the root file system can be written to"),
        ("network", "the container has a network"),
    ],
)
def test_a_loose_container_is_seen(image_test, loose, said):
    result = image_test(LOOSE=loose)
    assert result.returncode == 1 and said in result.stderr
