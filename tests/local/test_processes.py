"""Children end with their creator, whatever ends it: all of this runs real processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from local import processes

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

# Ignores TERM and leaves its process group: the most stubborn grandchild short of a privileged one.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 1:
    own_session = sys.argv[1] == "own-session"
    subprocess.Popen([sys.executable, __file__], start_new_session=own_session)
print(os.getpid(), flush=True)
time.sleep(600)
"""

CREATOR = """
import sys, time
from local import processes
processes.start([sys.executable, *sys.argv[2:]], name="tree", state_dir=sys.argv[1], cwd=sys.argv[1], grace_seconds=0.5)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def eventually(condition, what: str):
    """The condition's first true value, within a bound that only a hang reaches."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    pytest.fail(f"never happened: {what}")


def pids_in(log: Path, count: int) -> list[int]:
    def read():
        words = log.read_text().split() if log.exists() else []
        return [int(word) for word in words] if len(words) >= count else None

    return eventually(read, f"{count} process ids in {log}")


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "stubborn.py"
    path.write_text(STUBBORN)
    return str(path)


@pytest.fixture
def creator(tmp_path, script):
    """A process that has started the stubborn tree; yields it with the tree's pids."""
    made = []

    def make(kind: str):
        process = subprocess.Popen([sys.executable, "-c", CREATOR, str(tmp_path), script, kind], cwd=ROOT)
        made.append(process)
        pids = pids_in(tmp_path / "logs" / "tree.log", 2)
        assert all(map(alive, pids))
        return process, pids

    yield make
    for process in made:
        process.kill()
        process.wait()


def test_status_and_log(tmp_path):
    command = [sys.executable, "-c", "import os, sys; print(os.getcwd(), dict(os.environ)['WORD']); sys.exit(7)"]
    process = processes.start(command, name="x", state_dir=tmp_path, cwd=tmp_path, environment={"WORD": "bird"})
    assert process.wait(PATIENCE_SECONDS) == 7
    assert process.log_tail() == f"{tmp_path} bird"
    assert process.poll() == 7
    assert not list(tmp_path.glob("processes/*"))


def test_the_command_gets_the_given_environment_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "1")
    command = ["/bin/sh", "-c", "tr '\\0' '\\n' < /proc/self/environ" if os.path.exists("/proc") else "env"]
    process = processes.start(command, name="x", state_dir=tmp_path, environment={"PATH": os.environ["PATH"], "A": "1"})
    process.wait(PATIENCE_SECONDS)
    names = {line.partition("=")[0] for line in process.log_tail().splitlines()}
    assert {"PATH", "A"} <= names <= {"PATH", "A", "PWD", "_", "SHLVL", "OLDPWD"}  # the shell's own additions


def test_a_command_that_cannot_run_says_why(tmp_path):
    process = processes.start(["no-such-program"], name="x", state_dir=tmp_path)
    assert process.wait(PATIENCE_SECONDS) == 127
    assert "no-such-program" in process.log_tail()
    assert "No such file" in process.log_tail()


def test_stop_lets_a_willing_command_finish(tmp_path):
    command = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(3)); print('up', flush=True); time.sleep(600)"
    )
    process = processes.start(
        [sys.executable, "-c", command], name="x", state_dir=tmp_path, grace_seconds=PATIENCE_SECONDS
    )
    eventually(process.log_tail, "the command is up")
    assert process.stop() == 3
    assert process.stop() == 3


@linux
@pytest.mark.parametrize("kind", ["same-session", "own-session"])
def test_stop_kills_the_stubborn_and_their_children(tmp_path, script, kind):
    process = processes.start([sys.executable, script, kind], name="x", state_dir=tmp_path, grace_seconds=0.2)
    pids = pids_in(process.log_path, 2)
    assert set(pids) == set(process.members())
    assert processes.peak_memory_bytes(pids) > 2_000_000
    assert process.stop() == -signal.SIGKILL
    assert not any(map(alive, pids))
    assert not list(tmp_path.glob("processes/*"))


@linux
def test_a_command_that_ends_takes_its_children_with_it(tmp_path):
    command = ["/bin/sh", "-c", "sleep 600 & echo $!; exit 4"]
    process = processes.start(command, name="x", state_dir=tmp_path)
    assert process.wait(PATIENCE_SECONDS) == 4
    assert not alive(int(process.log_tail()))


@linux
@pytest.mark.parametrize("kind", ["same-session", "own-session"])
def test_nothing_survives_a_killed_creator(creator, kind):
    process, pids = creator(kind)
    process.kill()  # SIGKILL: no handler, no atexit
    eventually(lambda: not any(map(alive, pids)), "the tree ends with its creator")


def test_the_thread_that_starts_a_process_may_end(tmp_path):
    started = []
    command = ["/bin/sh", "-c", "echo up; sleep 1; echo later; sleep 600"]
    thread = threading.Thread(target=lambda: started.append(processes.start(command, name="x", state_dir=tmp_path)))
    thread.start()
    thread.join()
    eventually(lambda: "later" in started[0].log_tail(), "it outlives the thread")
    assert started[0].poll() is None
    started[0].stop()


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_stop_copes_without_the_supervisor(tmp_path, script, monkeypatch, number):
    monkeypatch.setattr(processes, "_SUPERVISOR_SECONDS", 0.2)  # of a stopped supervisor nothing is to be expected
    command = [sys.executable, script, "same-session"]
    process = processes.start(command, name="x", state_dir=tmp_path, cwd=tmp_path, grace_seconds=0)
    pids = pids_in(process.log_path, 2)
    child = process.members()[0]
    os.kill(process.pid, number)
    if number == signal.SIGKILL:
        eventually(lambda: not alive(child), "the command itself dies with its supervisor")
    process.stop()
    assert not any(map(alive, pids))
    assert not list(tmp_path.glob("processes/*"))


@linux
def test_reap_finds_what_a_killed_supervisor_left(tmp_path, creator):
    process, _ = creator("same-session")
    (record,) = (tmp_path / "processes").glob("tree-*.json")
    supervisor = json.loads(record.read_text())["pid"]
    assert processes.reap(tmp_path) == [], "its creator still runs"
    assert alive(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    process.wait()
    members = eventually(lambda: not alive(supervisor) and session(supervisor), "an orphan is left")
    assert processes.reap(tmp_path) == ["tree"]
    assert not any(map(alive, members))
    assert not list(tmp_path.glob("processes/*"))
    assert processes.reap(tmp_path) == []


def session(leader: int) -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(pid)) == leader and alive(int(pid)):
                found.append(int(pid))
    return found


@linux
def test_reap_spares_the_heir_of_a_recycled_process_id(tmp_path):
    (tmp_path / "processes").mkdir()
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True, cwd=tmp_path)
    try:
        record = {"name": "old", "cwd": str(tmp_path), "parent": 1, "parent_started": "0@another-boot"}
        record |= {"pid": bystander.pid, "started": "1@another-boot"}
        (tmp_path / "processes" / "old-1.json").write_text(json.dumps(record))
        assert processes.reap(tmp_path) == []
        assert bystander.poll() is None
        assert not list(tmp_path.glob("processes/*")), "the stale record is dropped"
    finally:
        bystander.kill()
        bystander.wait()


@linux
def test_reap_spares_a_foreign_member_of_a_leaderless_session(tmp_path):
    # The leader is gone and the member works elsewhere: the id may have been recycled, so it is not ours to kill.
    (tmp_path / "processes").mkdir()
    (tmp_path / "mine").mkdir()
    leader = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 600 & echo $!"], start_new_session=True, stdout=subprocess.PIPE, cwd="/"
    )
    member = int(leader.stdout.readline())
    leader.wait()
    try:
        record = {"name": "old", "cwd": str(tmp_path / "mine"), "parent": 1, "parent_started": "0@another-boot"}
        record |= {"pid": leader.pid, "started": "1@another-boot"}
        (tmp_path / "processes" / "old-1.json").write_text(json.dumps(record))
        assert processes.reap(tmp_path) == []
        assert alive(member)
    finally:
        os.kill(member, signal.SIGKILL)
        leader.stdout.close()


def test_reap_survives_a_broken_record(tmp_path):
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "x-1.json").write_text("{")
    assert processes.reap(tmp_path) == []
    assert not list(tmp_path.glob("processes/*"))


def test_log_tail_of_nothing(tmp_path):
    assert processes.log_tail(tmp_path / "none") == ""
