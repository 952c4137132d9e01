"""Serve the archive under /opt/ml/model: the SageMaker inference toolkit's handler behind multi-model-server.

    python model/container/serve.py

It is the entry point of the hosting image, and runs the same outside a container (Java 11 or newer on the PATH).
GET /ping answers as soon as the server is up, before the model is: readiness is a real POST /invocations.
TERM or INT stops the server, its JVM and its workers, and removes the scratch folder; the exit status is then 0.

Settings, all from the environment:

    SAGEMAKER_BASE_DIR               /opt/ml; the unpacked archive is <base>/model, its code <base>/model/code
    SAGEMAKER_PROGRAM                inference.py; the file under code/ that has model_fn, input_fn, ...
    SAGEMAKER_BIND_TO_PORT           8080; the port of /ping and /invocations
    BIND_ADDRESS                     0.0.0.0; the address of that port
    MANAGEMENT_PORT                  8081; the model server's management API, on 127.0.0.1 only; both ports must be
                                     at most 32767, which the model server takes for the highest
    SAGEMAKER_MODEL_SERVER_WORKERS   the number of physical cores; worker processes, each with its own model
    OMP_NUM_THREADS                  1; threads of one worker
    SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS  60; a worker that takes longer is restarted
    SAGEMAKER_MODEL_SERVER_VMARGS    -Xmx512m; arguments of the JVM
    SAGEMAKER_MAX_PAYLOAD_IN_MB      the model server's own limit, about 6.5 MB; a larger request is answered 413
    TMPDIR                           /tmp; a scratch folder of its own is made there for sockets, configuration and
                                     logs; a short path, because a Unix socket's has at most 107 characters

The toolkit's own launcher is not used, because it writes under /etc, opens the management API (which runs code it
is sent) to the network without a password, installs packages at start, takes any other model server of the
machine for its own, and leaves its workers behind when it is stopped.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import sagemaker_inference
from sagemaker_inference import default_handler_service, environment

STOP_SECONDS = 10
UNIX_SOCKET_PATH_LIMIT = 107
LONGEST_SOCKET_NAME = ".mms.sock.65535"
HIGHEST_PORT = 32767


class Mistake(Exception):
    """What is wrong with the settings, and the remedy, in one line."""


def default_workers() -> int:
    """Physical cores this process may use: a hyperthread adds nothing to a convolution."""
    return max(1, min(psutil.cpu_count(logical=False) or 1, len(psutil.Process().cpu_affinity())))


def prepare_environment(scratch: Path) -> None:
    """Fill in the settings that were not given, and point every temporary file and log at the scratch folder."""
    os.environ.setdefault("SAGEMAKER_PROGRAM", "inference.py")
    os.environ.setdefault("SAGEMAKER_MODEL_SERVER_WORKERS", str(default_workers()))
    os.environ.setdefault("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "60")
    os.environ.setdefault("SAGEMAKER_MODEL_SERVER_VMARGS", "-Xmx512m")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The server's pid file and its workers' sockets lie in the temporary folder: with one for each server,
    # two of them can run on one machine.
    os.environ["TMPDIR"] = os.environ["TEMP"] = str(scratch)
    os.environ.setdefault("LOG_LOCATION", str(scratch / "logs"))
    os.environ.setdefault("METRICS_LOCATION", str(scratch / "logs"))
    # The JVM starts its workers as plain `python`, which must be this one.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.code_dir, os.environ.get("PYTHONPATH")]))


def link_model(folder: Path) -> None:
    """Links in `folder` to what the archive holds, but for its manifest.json.

    The model server takes a file of that name, in capitals or not, for a manifest of its own and ends for want of its
    fields. The archive itself may be mounted read-only.
    """
    folder.mkdir()
    for entry in Path(environment.model_dir).iterdir():
        if entry.name.lower() != "manifest.json":
            (folder / entry.name).symlink_to(entry.resolve())


def server_properties() -> dict[str, str | int]:
    """The model server's configuration, from the environment."""
    settings = environment.Environment()
    properties = {
        "inference_address": f"http://{os.environ.get('BIND_ADDRESS', '0.0.0.0')}:{settings.inference_http_port}",
        "management_address": f"http://127.0.0.1:{os.environ.get('MANAGEMENT_PORT', '8081')}",
        "default_service_handler": default_handler_service.__name__,
        "default_workers_per_model": settings.model_server_workers,
        "default_response_timeout_seconds": settings.model_server_timeout_seconds,
        "decode_input_request": "false",
        "load_models": "ALL",
        "vmargs": settings.vmargs,
    }
    if settings.max_request_size:
        properties["max_request_size"] = settings.max_request_size
    return properties


def serve(scratch: Path) -> int:
    """Run the model server until it ends or this process is told to stop; its exit status, 0 where told to stop."""
    prepare_environment(scratch)
    model = scratch / "model"
    link_model(model)
    configuration = scratch / "server.properties"
    configuration.write_text("".join(f"{key}={value}\n" for key, value in server_properties().items()))
    command = [
        str(Path(sys.executable).with_name("multi-model-server")), "--start", "--foreground",
        "--model-store", "/", "--models", f"model={model}",
        "--mms-config", str(configuration),
        "--log-config", str(Path(sagemaker_inference.__file__).parent / "etc" / "log4j2.xml"),
    ]  # fmt: skip
    # A group of its own, so that whatever the server starts can be found again when its parent is gone.
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    server = subprocess.Popen(command)
    told_to_stop = False

    def stop(signal_number: int, frame: object) -> None:
        nonlocal told_to_stop
        told_to_stop = True
        for process in rest_of_group():
            terminate(process)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    status = server.wait()
    stop_rest_of_group()
    return 0 if told_to_stop else status or 1


def rest_of_group() -> list[psutil.Process]:
    """The live processes of this process's group, itself excepted."""
    members = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and os.getpgid(process.pid) == os.getpgrp():
                members.append(process)
        except ProcessLookupError:
            continue
    return members


def terminate(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.terminate()


def stop_rest_of_group() -> None:
    """End the JVM and the workers, politely, then not: a worker ignores TERM."""
    members = rest_of_group()
    for process in members:
        terminate(process)
    _, alive = psutil.wait_procs(members, timeout=STOP_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)


def check_settings(scratch: str) -> None:
    """Raise Mistake for what the model server would refuse late, or with a riddle."""
    program = Path(environment.code_dir) / os.environ.get("SAGEMAKER_PROGRAM", "inference.py")
    if not program.is_file():
        raise Mistake(f"no {program}: unpack the model archive into {environment.model_dir}")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise Mistake("no java on the PATH: install a Java runtime, 11 or newer")
    for name in ("SAGEMAKER_BIND_TO_PORT", "MANAGEMENT_PORT"):
        port = os.environ.get(name, "8080")
        if not (port.isdecimal() and 0 < int(port) <= HIGHEST_PORT):
            raise Mistake(f"{name}={port}: the model server takes ports from 1 to {HIGHEST_PORT}")
    if len(os.path.join(scratch, LONGEST_SOCKET_NAME)) > UNIX_SOCKET_PATH_LIMIT:
        raise Mistake(f"TMPDIR is too long for a socket's path in {scratch}: set a shorter one")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="serve-", ignore_cleanup_errors=True) as scratch:
        try:
            check_settings(scratch)
        except Mistake as mistake:
            print(f"error: {mistake}", file=sys.stderr)
            return 2
        return serve(Path(scratch))


if __name__ == "__main__":
    sys.exit(main())
