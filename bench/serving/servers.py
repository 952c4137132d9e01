"""The servers that are compared: started as they come, told apart by their settings, ended with all they started."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.memory import proportional_bytes
from bench.serving import load
from local import processes

ROOT = Path(__file__).resolve().parents[2]
SERVE = ROOT / "model" / "container" / "serve.py"
SCRIPTS = Path(__file__).parent / "scripts"
HOSTING = ROOT / ".venv-hosting"
PEERS = ROOT / ".venv-bench"
TORCHSERVE = ROOT / ".venv-torchserve"
START_SECONDS = 120.0
POLL_SECONDS = 0.02
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """How a server is started.

    base: holds the unpacked archive as `model`, as SageMaker's /opt/ml does. script: what Python runs, with a scratch
    folder as its argument. settings: variables, beside those that say where it is and what it serves.
    """

    base: Path
    python: Path = HOSTING / "bin" / "python"
    script: Path = SERVE
    settings: Mapping[str, str] = field(default_factory=dict)

    def available(self) -> bool:
        """Whether its environment is installed."""
        return self.python.exists()


class ServerError(RuntimeError):
    """A server did not come to answer; the message has the end of its log."""


class Running:
    """A server that has answered.

    seconds_to_first_answer: from its start to the end of its first answer with 200.
    """

    def __init__(self, process: processes.Process, port: int, seconds_to_first_answer: float):
        self.port, self.seconds_to_first_answer = port, seconds_to_first_answer
        self._process = process

    def load(self, pictures: list[Path], clients: int, seconds: float, warm_up: float = 2.0) -> load.Load:
        """See load.run."""
        return load.run(self.port, pictures, clients, seconds, warm_up)

    def cpu_seconds(self) -> float:
        """What its processes have taken of the processors so far."""
        return sum(map(_cpu_seconds, self._process.members()))

    def memory(self) -> dict[int, int]:
        """Proportional set size in bytes of each of its processes, by process id."""
        return {pid: proportional_bytes(pid) for pid in self._process.members()}

    def largest_worker_bytes(self) -> int:
        """The largest process that is no JVM: a worker with its model, in every server here."""
        return max(size for pid, size in self.memory().items() if not _is_java(pid))


@contextmanager
def running(server: Server, picture: Path, state: Path) -> Iterator[Running]:
    """Start a server, wait for its answer to a picture, and kill all of it in the end.

    state: a folder for its log. Raises ServerError where it ends, or gives no answer in START_SECONDS.
    """
    # A short path, because a Unix socket's has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as scratch:
        port, management_port = free_ports(2)
        variables = {
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(server.base / "model" / "code"),
            "PATH": f"{server.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "SAGEMAKER_BASE_DIR": str(server.base),
            "SAGEMAKER_PROGRAM": "inference.py",
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "BIND_ADDRESS": "127.0.0.1",
            "MANAGEMENT_PORT": str(management_port),
            **dict.fromkeys(("TMPDIR", "TEMP", "LOG_LOCATION", "METRICS_LOCATION"), scratch),
            **server.settings,
        }
        if "JAVA_HOME" in os.environ:
            variables["JAVA_HOME"] = os.environ["JAVA_HOME"]
        started = time.monotonic()
        process = processes.start(
            [str(server.python), str(server.script), scratch],
            name="server",
            state_dir=state,
            cwd=scratch,
            environment=variables,
            grace_seconds=0,  # nothing of it is kept; the reference's launcher would pass a TERM on to strangers
        )
        try:
            _await_answer(process, port, picture)
            yield Running(process, port, time.monotonic() - started)
        finally:
            process.stop()


def _await_answer(process: processes.Process, port: int, picture: Path) -> None:
    body, headers = picture.read_bytes(), {"Content-Type": load.CONTENT_TYPES[picture.suffix]}
    deadline, last = time.monotonic() + START_SECONDS, "no connection"
    while time.monotonic() < deadline:
        if (status := process.poll()) is not None:
            raise ServerError(f"the server ended with status {status}\n{process.log_tail()}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=max(1.0, deadline - time.monotonic()))
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", "/invocations", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == 200:
                return
            last = f"{answer.status} {text[:300].decode(errors='replace')}"
        time.sleep(POLL_SECONDS)
    raise ServerError(f"no answer in {START_SECONDS:g} s; last: {last}\n{process.log_tail()}")


def free_ports(count: int) -> list[int]:
    """Distinct free ports below 32768: the Java servers refuse higher ones, where the system's own choices begin."""
    free: list[int] = []
    for port in random.sample(range(10_240, 32_767), 1000):
        if len(free) == count:
            break
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            free.append(port)
    return free


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # It has ended.
        return 0.0
    return sum(map(int, fields[11:13])) / TICKS


def _is_java(pid: int) -> bool:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "java"
    except OSError:
        return False
