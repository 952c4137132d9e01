"""Child processes that cannot outlive the process that started them.

Each child runs under a small supervisor: this very file, run as a script. The supervisor leads a session of its own,
adopts every orphan below it (Linux: PR_SET_CHILD_SUBREAPER) and holds the read end of a pipe whose write end only its
creator has. The pipe reaching its end is the one signal to stop: `Process.stop` closes it, and the kernel closes it
when the creator dies, however it dies. The supervisor then sends TERM to the child's process group, waits, kills
whatever is left below it and leaves. PR_SET_PDEATHSIG alone would do neither: it fires when the creating *thread*
ends, and it does not reach grandchildren (a JVM, its workers).

Were the supervisor itself killed, the record it keeps in the state folder lets `reap` find the survivors later.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

GRACE_SECONDS = 5.0
_SUPERVISOR_SECONDS = 10.0  # what a supervisor may take beyond the grace of its command
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Process:
    """A command running under its supervisor. Made by `start`.

    Attributes:
        name: what the process is called in records and errors.
        pid: the supervisor's process id, which is also the id of the session the command lives in.
        log_path: the file that receives the command's standard output and error.
    """

    def __init__(
        self, name: str, supervisor: subprocess.Popen[bytes], log_path: Path, record: Path, grace_seconds: float
    ) -> None:
        self.name = name
        self.pid = supervisor.pid
        self.log_path = log_path
        self._supervisor = supervisor
        self._record = record
        self._grace_seconds = grace_seconds

    def poll(self) -> int | None:
        """The command's exit status (negative: the signal that ended it), or None while it runs."""
        return self._status(self._supervisor.poll())

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Waits for the command and everything below it to end; TimeoutError after `timeout_seconds`."""
        try:
            return self._status(self._supervisor.wait(timeout_seconds))
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {timeout_seconds} s; see {self.log_path}") from None

    def stop(self) -> int:
        """Ends the command and everything below it: TERM, `grace_seconds`, KILL. Returns its exit status.

        Safe to call from any thread, and again.
        """
        with contextlib.suppress(OSError):  # it may have ended before it had read its orders
            self._supervisor.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a stopped (SIGSTOP) or starved supervisor
            self._supervisor.wait(self._grace_seconds + _SUPERVISOR_SECONDS)
        _end(self._record)
        return self._status(self._supervisor.wait())

    def members(self) -> list[int]:
        """The process ids of the command and its descendants; empty where /proc is missing."""
        return _descendants(self.pid)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log, for an error message."""
        return log_tail(self.log_path, lines)

    @staticmethod
    def _status(code: int | None) -> int | None:
        # The supervisor hands a signal on as 128 + n, as a shell does: it cannot die of KILL on the child's behalf.
        return 128 - code if code is not None and code > 128 else code


def start(
    command: Sequence[str],
    *,
    name: str,
    state_dir: Path | str,
    log_path: Path | str | None = None,
    cwd: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> Process:
    """Starts `command` in a session of its own, ended at the latest when this process ends.

    Args:
        command: the program, looked up on the PATH of `environment`, and its arguments.
        name: a file-name-safe word for records and errors; several processes may share it.
        state_dir: records are kept in its `processes` folder; see `reap`.
        log_path: standard output and error are appended here; default `<state_dir>/logs/<name>.log`.
        cwd: working directory, default the present one. Best one below `state_dir`: `reap` goes by it.
        environment: the whole environment of the command; default that of this process.
        grace_seconds: time between TERM and KILL when stopped; 0 kills at once.

    A command that cannot be run ends with status 127 and its reason in the log.
    """
    state_dir = Path(state_dir).resolve()
    log_path = Path(log_path).resolve() if log_path else state_dir / "logs" / f"{name}.log"
    for folder in (state_dir / "processes", log_path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    orders = {
        "command": [os.fspath(part) for part in command],
        "cwd": str(Path(cwd or ".").resolve()),
        "environment": dict(os.environ if environment is None else environment),
        "grace_seconds": grace_seconds,
        "name": name,
        "records": str(state_dir / "processes"),
        "parent": os.getpid(),
        "parent_started": _started(os.getpid()),
    }
    with open(log_path, "ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],  # the standard library alone: quick and small
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={},
            cwd="/",
            start_new_session=True,
        )
    with contextlib.suppress(BrokenPipeError):  # it died at once: poll() and the log say so
        supervisor.stdin.write(json.dumps(orders).encode() + b"\n")
        supervisor.stdin.flush()
    return Process(name, supervisor, log_path, _record_path(orders["records"], name, supervisor.pid), grace_seconds)


def reap(state_dir: Path | str) -> list[str]:
    """Kills what an earlier run left behind in `state_dir`; returns the names of the processes it killed.

    Processes whose creator still runs are left alone. A process id in a record may meanwhile belong to somebody else,
    so a survivor is killed only when its supervisor is the recorded one (same id, same start time), or when the
    supervisor is gone and the survivor, still in its session, works in the recorded directory. Needs /proc: elsewhere
    nothing can be proven, so nothing is killed.
    """
    killed = []
    for path in sorted(Path(state_dir).glob("processes/*.json")):
        record = _read_record(path)
        creator = _started(record["parent"]) if record else None
        if (creator is None or creator != record["parent_started"]) and _end(path):
            killed.append(record["name"])
    return killed


def peak_memory_bytes(pids: Iterable[int]) -> int:
    """The sum of the processes' peak resident memory (pages they share count for each); 0 for those that are gone."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total


def log_tail(path: Path | str, lines: int = 20, most_bytes: int = 8192) -> str:
    """The last `lines` lines (at most `most_bytes`) of a text file; empty when there is none."""
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - most_bytes))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


# What the kernel knows of processes (Linux; elsewhere there is no /proc and these find nothing) ---------------------


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on, or None when the process is gone or a zombie."""
    try:
        # The command name may hold blanks and parentheses: only what follows the last one splits cleanly.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields


def _started(pid: int) -> str | None:
    """When the process began, to the clock tick and boot: with its id, this names one process for good."""
    fields = _stat(pid)
    return f"{fields[19]}@{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}" if fields else None


def _processes() -> dict[int, list[str]]:
    if not os.path.isdir("/proc/self"):
        return {}
    return {int(pid): fields for pid in os.listdir("/proc") if pid.isdigit() and (fields := _stat(int(pid)))}


def _session(leader: int) -> list[int]:
    return [pid for pid, fields in _processes().items() if int(fields[3]) == leader]


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for child, fields in _processes().items():
        children.setdefault(int(fields[1]), []).append(child)
    found, level = [], children.get(pid, [])
    while level:
        found += level
        level = [grandchild for child in level for grandchild in children.get(child, [])]
    return found


def _survivors(record: dict[str, Any]) -> list[int]:
    started = _started(record["pid"])
    if started is not None and started != record["started"]:
        return []  # the id was given out again, which the kernel does only once the whole session has gone
    if started is not None:
        return [record["pid"], *_descendants(record["pid"]), *_session(record["pid"])]
    return [pid for pid in _session(record["pid"]) if _works_in(pid, record["cwd"])]


def _record_path(folder: str, name: str, supervisor: int) -> Path:
    return Path(folder, f"{name}-{supervisor}.json")


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # removed by its supervisor just now, or cut short by a full disk
        return None


def _end(path: Path) -> bool:
    """Kills whom a record names, where that is still provable, and drops the record; whether anybody was left."""
    record = _read_record(path)
    survivors = left = _survivors(record) if record else []
    for _ in range(500):
        for pid in survivors:
            _kill(pid, signal.SIGKILL)
        if not survivors:
            break
        time.sleep(0.02)
        survivors = _survivors(record)
    path.unlink(missing_ok=True)
    return bool(left)


def _works_in(pid: int, folder: str) -> bool:
    try:
        return (os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)") + "/").startswith(folder.rstrip("/") + "/")
    except OSError:
        return False


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


# The supervisor -----------------------------------------------------------------------------------------------------


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _exec(orders: dict[str, Any], supervisor: int) -> None:
    try:
        os.setpgid(0, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # sound here: the supervisor has one thread
        if os.getppid() != supervisor:
            os._exit(127)
        signal.set_wakeup_fd(-1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.chdir(orders["cwd"])
        os.execvpe(orders["command"][0], orders["command"], orders["environment"])
    except OSError as error:
        os.write(2, f"cannot run {orders['command'][0]} in {orders['cwd']}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _supervise() -> int:
    """Runs one command as ordered on standard input; see the module's docstring. Returns the status to exit with."""
    line = b""
    while not line.endswith(b"\n"):  # unbuffered, so that select() later sees all there is
        if not (chunk := os.read(0, 65536)):
            return 0  # the creator died first: nothing runs yet
        line += chunk
    orders = json.loads(line)
    supervisor = os.getpid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)

    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # a handler, not SIG_IGN: the command must not inherit it

    record = _record_path(orders["records"], orders["name"], supervisor)
    kept = {key: orders[key] for key in ("name", "cwd", "parent", "parent_started")}
    beside = record.with_suffix(".new")
    beside.write_text(json.dumps(kept | {"pid": supervisor, "started": _started(supervisor)}))
    os.replace(beside, record)

    child = os.fork()
    if child == 0:
        _exec(orders, supervisor)
    with contextlib.suppress(OSError):  # here as well as in the child: whichever is first, the group exists
        os.setpgid(child, child)
    status = None
    deadline = None  # set once we are to stop; while None, standard input is watched
    while status is None and (deadline is None or time.monotonic() < deadline):
        patience = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = select.select([wake] if deadline else [wake, 0], [], [], patience)[0]
        numbers = os.read(wake, 512) if wake in ready else b""
        status = _collect(child)
        asked = 0 in ready and not os.read(0, 512)
        if deadline is None and (asked or signal.SIGTERM in numbers or signal.SIGINT in numbers):
            deadline = time.monotonic() + orders["grace_seconds"]
            if orders["grace_seconds"] > 0 and status is None:
                _kill(-child, signal.SIGTERM)
    _kill(-child, signal.SIGKILL)  # also what the command left in its group when it ended by itself
    while survivors := _descendants(supervisor):  # and what left the group
        for pid in survivors:
            _kill(pid, signal.SIGKILL)
        status = _collect(child, status)
        time.sleep(0.01)
    while status is None:
        status = _collect(child)
        time.sleep(0.01)
    record.unlink(missing_ok=True)
    return status


def _collect(child: int, status: int | None = None) -> int | None:
    """Takes leave of every ended process below us; `status`, or the child's if it was among them (128 + signal)."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
                status = code if code >= 0 else 128 - code
    except ChildProcessError:
        pass
    return status


if __name__ == "__main__":
    sys.exit(_supervise())
