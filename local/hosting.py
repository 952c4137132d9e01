"""Hosts a model archive as SageMaker does: the hosting image's own entry point on the unpacked archive, on loopback.

What runs is `model/container/serve.py` (an HTTP front, and workers behind the inference toolkit) under the interpreter
of the hosting environment, with the variables SageMaker would set. Only the container is missing: the process sees
this machine's files and network.
"""

from __future__ import annotations

import gzip
import http.client
import os
import shutil
import socket
import tarfile
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

from local import processes

ROOT = Path(__file__).resolve().parents[1]
SERVE = ROOT / "model" / "container" / "serve.py"
PYTHON = ROOT / ".venv-hosting" / "bin" / "python"
START_SECONDS = 120.0
INVOKE_SECONDS = 60.0  # SageMaker's limit for one answer
READ_BYTES = 1 << 20
STOP_SECONDS = 28.0  # what SageMaker leaves a server to finish what it has in work is 30


class HostingError(Exception):
    """The archive cannot be hosted, or the host no longer answers; the message ends with the log's last lines."""


class EndpointHost:
    """One instance behind an endpoint.

    Args:
        archive_path: model.tar.gz.
        state_dir: the archive is unpacked below it; process records and logs are kept there.
        environment: the SageMaker model's container variables (SAGEMAKER_PROGRAM, ...); nothing else is inherited.
        python: interpreter with the hosting image's packages.
        workers: worker processes, each with the model in its own memory.
    """

    def __init__(
        self,
        archive_path: Path | str,
        state_dir: Path | str,
        environment: Mapping[str, str] | None = None,
        *,
        python: Path | str = PYTHON,
        workers: int = 1,
    ) -> None:
        self.archive_path = Path(archive_path)
        self.port: int | None = None
        self.process: processes.Process | None = None
        self._state_dir = Path(state_dir).resolve()
        self._environment = dict(environment or {})
        self._python = Path(python)
        self._workers = workers
        self._folder: Path | None = None

    def start(self, timeout_seconds: float = START_SECONDS) -> None:
        """Unpacks the archive, starts the server and returns once /ping is 200: the model has answered a picture then.

        Raises HostingError when the archive is unsafe or incomplete, the server ends, the model cannot be loaded, or
        time is up; nothing is left running then.
        """
        try:
            self._launch()
            self._await_readiness(timeout_seconds)
        except BaseException:
            self.stop()
            raise

    def invoke(
        self, body: bytes, content_type: str, accept: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Posts to /invocations and returns status, headers (lower-case names) and body, whatever the status.

        Raises HostingError when there is no answer within 60 s.
        """
        try:
            sent = {**(headers or {}), "Content-Type": content_type, "Accept": accept}
            return self._request("POST", "/invocations", body, sent)
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(f"no answer from the model server: {error or type(error).__name__}") from None

    def stop(self) -> None:
        """Ends the server and its workers, and removes the unpacked archive. Safe to call again."""
        if self.process is not None:
            self.process.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def peak_memory_bytes(self) -> int:
        """Peak resident memory of the front and the workers together."""
        return processes.peak_memory_bytes(self.process.members()) if self.process else 0

    def _launch(self) -> None:
        if not self._python.exists():
            raise HostingError(f"no {self._python}: install model/container/requirements.txt into .venv-hosting")
        endpoints = self._state_dir / "endpoints"
        endpoints.mkdir(parents=True, exist_ok=True)
        folder = self._folder = Path(tempfile.mkdtemp(prefix="endpoint-", dir=endpoints))
        unpack(self.archive_path, folder / "ml" / "model")
        (folder / "tmp").mkdir()
        self.port = _free_port()
        variables = {
            "SAGEMAKER_MODEL_SERVER_WORKERS": str(self._workers),
            "OMP_NUM_THREADS": "1",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            # Absolute paths of the image mean the unpacked archive here.
            **{name: value.replace("/opt/ml", str(folder / "ml")) for name, value in self._environment.items()},
            "BIND_ADDRESS": "127.0.0.1",
            "PATH": f"{self._python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "SAGEMAKER_BASE_DIR": str(folder / "ml"),
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "TMPDIR": str(folder / "tmp"),
        }
        self.process = processes.start(
            [str(self._python), str(SERVE)],
            name="endpoint",
            state_dir=self._state_dir,
            log_path=self._state_dir / "logs" / f"{folder.name}.log",
            cwd=folder,
            environment=variables,
            grace_seconds=STOP_SECONDS,
        )

    def _await_readiness(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if (status := self.process.poll()) is not None:
                raise self._failure(f"the model server ended with status {status} before it was ready")
            try:
                status, _, _ = self._request("GET", "/ping", seconds=1)
            except (OSError, http.client.HTTPException):
                status = None  # not listening yet
            if status == 200:
                return
            time.sleep(0.02)
        raise self._failure(f"the model server was not ready within {timeout_seconds:g} s")

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = INVOKE_SECONDS,
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def _failure(self, what: str) -> HostingError:
        return HostingError(f"{self.archive_path.name}: {what}\n{self.process.log_tail(30)}".rstrip())


def unpack(archive_path: Path, folder: Path) -> None:
    """Unpacks a model archive of plain files and folders; HostingError for anything else in it, naming the member."""
    folder.mkdir(parents=True)
    try:
        with gzip.open(archive_path) as content:
            with tarfile.open(fileobj=content, mode="r:") as archive:
                for member in archive:
                    outside = member.name.startswith("/") or ".." in Path(member.name).parts
                    if outside or not (member.isfile() or member.isdir()):
                        raise HostingError(
                            f"{archive_path.name}: refused member {member.name!r}: a model archive holds plain files "
                            "and folders below its root, no links and no devices"
                        )
                    archive.extract(member, folder, filter="data")
            while content.read(READ_BYTES):
                pass  # gzip's checksum stands behind what tarfile reads
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise HostingError(f"cannot unpack {archive_path}: {error}") from None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
