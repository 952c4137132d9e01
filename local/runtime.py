"""Runs an uploaded function as Lambda does: the unpacked zip under AWS's own runtime client, without a container.

Each execution environment is one process, `python -m awslambdaric HANDLER`, that asks a Runtime API server (one for
each environment, as on AWS) for its next event. What the process can import is the zip and what AWS's Python runtime
brings (boto3 and the runtime client with their dependencies), so a package missing from the zip is missing here too.

Not modelled: the memory limit (only reported), freezing between invocations, a read-only task root, layers, and the
function's choice of a Python version: it is always this interpreter's.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import math
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from local import processes
from local.runtime_api import RESPONSE_LIMIT_BYTES, Event, Outcome, RuntimeAPI

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
REQUEST_LIMIT_BYTES = 6_291_456
UNZIPPED_LIMIT_BYTES = 262_144_000
LOG_TAIL_BYTES = 4096
INIT_SECONDS = 10


class TooManyRequests(Exception):
    """Every execution environment is busy: Lambda's TooManyRequestsException, reason
    ReservedFunctionConcurrentInvocationLimitExceeded."""


class RequestTooLarge(ValueError):
    """The payload is over 6 MB: Lambda's RequestTooLargeException."""


class InvalidPackage(ValueError):
    """The zip is no zip, or too large: Lambda's InvalidParameterValueException."""


class Invocation(NamedTuple):
    """What Lambda answers to a synchronous invocation.

    `status` is 200 whenever the function was reached; `function_error` is None or "Unhandled"; `payload` is the
    handler's JSON, or the error's; `log_tail` is the last 4 KB of the log (not base64).
    """

    status: int
    function_error: str | None
    payload: bytes
    log_tail: str


class FunctionHost:
    """One published version of a function: starts execution environments on demand and reuses them.

    Args:
        zip_bytes: the deployment package; InvalidPackage when it cannot be unpacked.
        handler: "module.function".
        environment: the function's variables, credentials included; nothing is inherited from this process.
        timeout_seconds: an environment that takes longer is killed and the invocation answers Sandbox.Timedout.
            The first invocation has 10 s more, for the init phase.
        memory_mb: reported, not enforced.
        max_environments: the reserved concurrency; at 0 every invocation is refused.
        function_arn: names the function and its region; the invoked ARN unless `invoke` is given another.
        version: "$LATEST" or a number.
        log_sink: called once an invocation with its log events, in order, the START, END and REPORT lines included.
        state_dir: the package is unpacked below it; process records are kept there.
    """

    def __init__(
        self,
        zip_bytes: bytes,
        handler: str,
        environment: Mapping[str, str],
        timeout_seconds: float,
        memory_mb: int,
        max_environments: int,
        *,
        function_arn: str,
        version: str = "$LATEST",
        log_sink: Callable[[list[str]], None] | None = None,
        state_dir: Path | str,
    ) -> None:
        self.function_arn = function_arn
        self.version = version
        self.timeout_seconds = timeout_seconds
        self.memory_mb = memory_mb
        self.max_environments = max_environments
        self.log_stream_name = f"{time.strftime('%Y/%m/%d', time.gmtime())}/[{version}]{secrets.token_hex(16)}"
        self._log_sink = log_sink or (lambda lines: None)
        self._lock = threading.Lock()
        self._idle: list[_Environment] = []
        self._all: set[_Environment] = set()
        self._slots_taken = 0
        self._stopped = False

        name, region = function_arn.split(":")[6], function_arn.split(":")[3]
        functions = Path(state_dir).resolve() / "functions"
        functions.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=functions))
        self._state_dir = Path(state_dir)
        self._name = name
        self._handler = handler
        try:
            _unzip(zip_bytes, self._folder / "task")
            _link_runtime(self._folder / "runtime")
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        self._variables = {
            "TZ": ":UTC",
            "LANG": "C.UTF-8",
            **environment,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(self._folder / "runtime"),
            "LAMBDA_TASK_ROOT": str(self._folder / "task"),
            "LAMBDA_RUNTIME_DIR": str(self._folder / "runtime"),
            "_HANDLER": handler,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_VERSION": version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": self.log_stream_name,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
        }

    def invoke(
        self,
        payload: bytes,
        *,
        client_context: str | None = None,
        invoked_arn: str | None = None,
        trace_id: str | None = None,
        request_id: str | None = None,
    ) -> Invocation:
        """Runs the handler on a JSON payload and waits for its answer. May be called from many threads.

        Args:
            payload: JSON, at most 6,291,456 bytes (RequestTooLarge); empty counts as {}.
            client_context: JSON text, already decoded from the header's base64.
            invoked_arn: the ARN with the alias or version that the caller used.
            trace_id: the X-Amzn-Trace-Id header's value.

        Raises TooManyRequests when `max_environments` environments are busy.
        """
        if len(payload) > REQUEST_LIMIT_BYTES:
            raise RequestTooLarge(
                f"Request must be smaller than {REQUEST_LIMIT_BYTES} bytes for the InvokeFunction operation"
            )
        request_id = request_id or str(uuid.uuid4())
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Invoked-Function-Arn": invoked_arn or self.function_arn,
            "Lambda-Runtime-Trace-Id": trace_id or f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)};Sampled=0",
        }
        if client_context:
            headers["Lambda-Runtime-Client-Context"] = " ".join(client_context.splitlines())
        event = Event(request_id, payload or b"{}", headers)
        environment = self._take()
        try:
            invocation, lines = environment.run(event)
        finally:
            self._give_back(environment)
        self._log_sink(lines)
        return invocation

    def process_ids(self) -> list[int]:
        """The processes of the environments that have answered; empty where /proc is missing."""
        with self._lock:
            return [pid for environment in self._all for pid in environment.pids]

    def stop(self) -> None:
        """Ends every environment, running invocations included, and removes the unpacked package."""
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, []
            self._all.difference_update(idle)
            busy = list(self._all)
        for environment in busy:
            environment.end()  # and stopped by whom it answers
        for environment in idle:
            environment.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _take(self) -> _Environment:
        with self._lock:
            if self._stopped:
                raise RuntimeError(f"function {self._name} is stopped")
            while self._idle:
                if (environment := self._idle.pop()).alive():
                    break
                self._all.discard(environment)
                environment.stop()
            else:
                if self._slots_taken >= self.max_environments:
                    raise TooManyRequests("Rate Exceeded.")
                environment = _Environment(self._command(), self._variables, self)
                self._all.add(environment)
            self._slots_taken += 1
            return environment

    def _give_back(self, environment: _Environment) -> None:
        with self._lock:
            self._slots_taken -= 1
            if environment.alive() and not self._stopped:
                self._idle.append(environment)
                return
            self._all.discard(environment)
        environment.stop()

    def _command(self) -> list[str]:
        # -S keeps this interpreter's own packages out; PYTHONPATH brings in the runtime's, after the task root.
        return [sys.executable, "-S", "-m", "awslambdaric", self._handler]

    def _launch(self, command: list[str], variables: Mapping[str, str]) -> processes.Process:
        return processes.start(
            command,
            name=self._name,
            state_dir=self._state_dir,
            log_path=self._folder / "logs" / f"{secrets.token_hex(4)}.log",
            cwd=self._folder / "task",
            environment=variables,
            grace_seconds=0,  # Lambda gives a function without extensions no warning either
        )


class _Environment:
    """One execution environment: a process and the Runtime API that it talks to."""

    def __init__(self, command: list[str], variables: Mapping[str, str], host: FunctionHost) -> None:
        self.host = host
        self.spoiled = False  # not to be reused
        self.pids: list[int] = []
        self._cold = True
        self._api = RuntimeAPI()
        self._begun = time.monotonic()
        self.process = host._launch(command, {**variables, "AWS_LAMBDA_RUNTIME_API": self._api.address})
        # A file and not a pipe, so that all the handler wrote before it answered is surely there to read.
        self._log = open(self.process.log_path, "rb")  # noqa: SIM115
        threading.Thread(target=self._watch, daemon=True).start()

    def alive(self) -> bool:
        return not self.spoiled and self.process.poll() is None

    def end(self) -> None:
        """Ends the process; what it runs answers that it ended. From any thread."""
        self.spoiled = True
        self.process.stop()

    def stop(self) -> None:
        """Ends the process, of which nobody waits for an answer."""
        self.end()
        self._api.close()
        self._log.close()

    def run(self, event: Event) -> tuple[Invocation, list[str]]:
        """Hands one event to the process and waits for what becomes of it, within the function's timeout."""
        timeout_seconds, init_ms, answer = self.host.timeout_seconds, None, None
        if self._cold:
            self._cold = False
            answer = self._exchange(None, INIT_SECONDS + timeout_seconds)
            init_ms = (time.monotonic() - self._begun) * 1000
            self.pids = self.process.members()
        lines = self._new_log_lines()
        lines.append(f"START RequestId: {event.request_id} Version: {self.host.version}")
        began = time.monotonic()
        if answer is None or answer.kind == "ready":
            deadline = {"Lambda-Runtime-Deadline-Ms": str(int((time.time() + timeout_seconds) * 1000))}
            answer = self._exchange(event._replace(headers={**event.headers, **deadline}), timeout_seconds)
        duration_ms = (time.monotonic() - began) * 1000
        peak_bytes = processes.peak_memory_bytes(self.pids)
        error, body, notes = self._outcome(answer, event)
        self.spoiled |= answer.kind not in ("response", "error") or len(answer.body) > RESPONSE_LIMIT_BYTES
        lines += self._new_log_lines()
        if answer.kind == "timeout":
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            lines.append(f"{stamp} {event.request_id} Task timed out after {timeout_seconds:.2f} seconds")
        elif answer.kind == "exit":
            lines.append(json.loads(body)["errorMessage"])
        lines.append(f"END RequestId: {event.request_id}")
        report = {
            "REPORT RequestId": event.request_id,
            "Duration": f"{duration_ms:.2f} ms",
            "Billed Duration": f"{math.ceil(duration_ms + (init_ms or 0))} ms",  # initialisation is billed too
            "Memory Size": f"{self.host.memory_mb} MB",
            "Max Memory Used": f"{peak_bytes // 2**20} MB" if peak_bytes else None,
            "Init Duration": f"{init_ms:.2f} ms" if init_ms is not None else None,
            **notes,
        }
        lines.append("".join(f"{name}: {value}\t" for name, value in report.items() if value is not None))
        tail = "\n".join(lines).encode()[-LOG_TAIL_BYTES:].decode(errors="ignore")
        return Invocation(200, error, body, tail), lines

    def _outcome(self, answer: Outcome, event: Event) -> tuple[str | None, bytes, dict[str, str]]:
        """The function error or None, the payload, and what the REPORT line says of the end."""
        if answer.kind == "response" and len(answer.body) <= RESPONSE_LIMIT_BYTES:
            return None, answer.body, {}
        if answer.kind in ("error", "init_error"):
            return "Unhandled", answer.body, {"Status": "error"}
        if answer.kind == "response":
            kind = "Function.ResponseSizeTooLarge"
            message = (
                f"Response payload size ({len(answer.body)} bytes) exceeded "
                f"maximum allowed payload size ({RESPONSE_LIMIT_BYTES} bytes)."
            )
        elif answer.kind == "timeout":
            kind = "Sandbox.Timedout"
            message = (
                f"RequestId: {event.request_id} Error: Task timed out after {self.host.timeout_seconds:.2f} seconds"
            )
        else:
            kind = "Runtime.ExitError"
            code = self.process.wait()
            reason = f"signal: {_signal_name(-code)}" if code < 0 else f"exit status {code}"
            how = f"Runtime exited with error: {reason}" if code else "Runtime exited without providing a reason"
            message = f"RequestId: {event.request_id} Error: {how}"
        notes = {"Status": "timeout"} if answer.kind == "timeout" else {"Status": "error", "Error Type": kind}
        return "Unhandled", json.dumps({"errorType": kind, "errorMessage": message}).encode(), notes

    def _exchange(self, event: Event | None, seconds: float) -> Outcome:
        outcome = self._api.exchange(event, time.monotonic() + seconds)
        if outcome.kind == "timeout":
            self.end()
        return outcome

    def _watch(self) -> None:
        self.process.wait()
        self._api.end()

    def _new_log_lines(self) -> list[str]:
        # The runtime client ends the lines of one traceback with \r, to keep it one log event.
        data = self._log.read().decode(errors="replace")
        return [line.replace("\r", "\n") for line in data.split("\n") if line]


def _unzip(zip_bytes: bytes, folder: Path) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(zip_bytes)) as package:
            size = sum(member.file_size for member in package.infolist())
            if size > UNZIPPED_LIMIT_BYTES:
                raise InvalidPackage(f"Unzipped size must be smaller than {UNZIPPED_LIMIT_BYTES} bytes, not {size}")
            package.extractall(folder)  # drops "..", drive letters and leading slashes; makes no links
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error) as error:
        raise InvalidPackage(f"Could not unzip uploaded file ({error}): upload a zip of the package's files") from None


def _link_runtime(folder: Path) -> None:
    """Fills `folder` with links to what AWS's runtime brings: boto3 and the runtime client, with dependencies."""
    folder.mkdir()
    wanted, seen = ["awslambdaric", "boto3"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # a dependency of another platform or Python version
            continue
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            os.symlink(distribution.locate_file(top), folder / top)
        for requirement in distribution.requires or []:
            if "extra ==" not in requirement:
                wanted.append(re.match(r"[\w.-]+", requirement)[0])


def _signal_name(number: int) -> str:
    """As Go prints it, which is how AWS's error spells it: "killed", "segmentation fault"."""
    return (signal.strsignal(number) or str(number)).lower()
