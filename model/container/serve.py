"""Serve the archive under /opt/ml/model: an HTTP front and worker processes behind the SageMaker inference toolkit.

    python model/container/serve.py

It is the entry point of the hosting image, and runs the same outside a container. Each worker loads the archive with
the toolkit (model_fn, input_fn, predict_fn, output_fn or transform_fn) and has one request in work at a time; the front
reads requests, queues them, and replaces a worker that ends or takes too long.

GET /ping is 200 while a worker has answered a picture, else 503. POST /invocations is answered by the model. There is
nothing else. Errors are {"error": {"code", "message"}}. Each request has an id: the one SageMaker sends as
X-Amzn-SageMaker-Inference-Id, else X-Request-Id, else a new one; it comes back as X-Request-Id and stands in the log
(JSON lines on standard output) with the status, the body's bytes, and the milliseconds in queue and in work.

TERM or INT: no new connections, what is in work or in the queue is answered (for at most 25 s), the workers end, and
the exit status is 0. It is 1 for a model that cannot be loaded, 2 for wrong settings; why is said on standard error.

Settings, all from the environment:

    SAGEMAKER_BASE_DIR               /opt/ml; the unpacked archive is <base>/model, its code <base>/model/code
    SAGEMAKER_PROGRAM                inference.py; the file under code/ that has model_fn, input_fn, ...
    SAGEMAKER_BIND_TO_PORT           8080; the port of /ping and /invocations
    BIND_ADDRESS                     0.0.0.0; the address of that port
    SERVING_MODE                     throughput: a worker for each physical core; or latency: one worker for all
    SAGEMAKER_MODEL_SERVER_WORKERS   as SERVING_MODE says; worker processes, each with its own model
    OMP_NUM_THREADS                  the physical cores, shared out between the workers; threads of one worker
    SERVING_QUEUE_LENGTH             32 for each worker; requests that wait, any more are answered 503 at once
    SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS  60; a worker that takes longer is replaced, its request answered 504
    SAGEMAKER_STARTUP_TIMEOUT        600; seconds in which a worker must have loaded the model
    SAGEMAKER_MAX_PAYLOAD_IN_MB      6, which is SageMaker's own limit; a larger body is answered 413
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from pool import Pool, StartError
from settings import Mistake, Settings, physical_cores, settings_from

if TYPE_CHECKING:
    from uvicorn import Server

DRAIN_SECONDS = 25  # SageMaker kills 30 s after its TERM


def listen(settings: Settings) -> socket.socket:
    """The port, taken before anything is started. Raises Mistake."""
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    try:
        return socket.create_server((settings.address, settings.port), family=family, backlog=2048)
    except OSError as error:
        reason = f"BIND_ADDRESS={settings.address}, SAGEMAKER_BIND_TO_PORT={settings.port}: {error.strerror}"
        raise Mistake(f"{reason}: give a free port of this machine") from None


def run(settings: Settings, listener: socket.socket) -> None:
    """Serve until told to stop. Raises StartError where the model cannot be loaded."""
    pool = Pool(settings)
    keep_freed_memory()
    # Here, because the workers load the model while this is loaded.
    import uvloop
    from front import Front
    from uvicorn import Config, Server

    config = Config(
        Front(pool, settings),
        access_log=False,
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ws="none",
    )
    uvloop.run(serve(Server(config), pool, listener))


def keep_freed_memory() -> None:
    """Use the memory of one large body for the next: fresh pages from the system cost more than all else done to it."""
    import ctypes

    # By their numbers in glibc's malloc.h; another C library has none of this.
    trim_threshold, mmap_threshold = -1, -3
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, 32 * 1024 * 1024)
        library.mallopt(trim_threshold, 64 * 1024 * 1024)


async def serve(server: Server, pool: Pool, listener: socket.socket) -> None:
    """Answer requests until told to stop, or until the pool gives up."""

    def stop(_: asyncio.Task) -> None:
        server.should_exit = True

    workers = asyncio.create_task(pool.run())
    workers.add_done_callback(stop)
    try:
        await server.serve(sockets=[listener])
    finally:
        workers.cancel()
        await asyncio.wait([workers])
    if not workers.cancelled():
        raise workers.exception().exceptions[0]


def leave(signal_number: int, frame: object) -> None:
    """What a signal to stop does until the server takes it, and once more after the server is done."""
    sys.exit(0)


def main() -> int:
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    try:
        settings = settings_from(os.environ, physical_cores())
        listener = listen(settings)
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    print(settings, flush=True)
    try:
        run(settings, listener)
    except StartError as error:
        print(f"error: the model in {settings.model_dir} cannot be loaded: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
