"""The worker processes as the front sees them, and the queue before them: first come, first served."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from settings import Settings
from worker import HEAD, JSON, error_body, log, message

WORKER = Path(__file__).with_name("worker.py")
STOP_SECONDS = 2  # for a worker whose channel is closed, to go by itself
LONGEST_PAUSE_SECONDS = 30


class StartError(Exception):
    """A worker cannot be started; the message says why, in one line."""


class Answer(NamedTuple):
    """What a client gets. headers: lower-case names and their values, beside the content type."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


def refusal(status: int, code: str, text: str) -> Answer:
    """An answer that is an error; with 503 the client is told to come again."""
    return Answer(status, error_body(code, text), headers=(("retry-after", "1"),) if status == 503 else ())


NOT_READY = refusal(503, "not_ready", "no worker is ready: try again")
QUEUE_FULL = refusal(503, "queue_full", "as many requests as may wait are waiting: try again")
WORKER_LOST = refusal(500, "worker_lost", "the worker ended with this request in work")
TIMED_OUT = refusal(504, "timed_out", "the model took too long for this request")


class Job:
    """A request on its way through; queued, started and ended are seconds of the monotonic clock."""

    def __init__(self, request_id: str, headers: dict[str, str], body: bytes):
        self.request = message({"request_id": request_id, "headers": headers}, body)
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.queued = monotonic()
        self.started: float | None = None
        self.ended: float | None = None

    def end(self, answer: Answer) -> None:
        """Give the answer to whoever waits for it, if anybody still does."""
        self.ended = monotonic()
        if not self.answer.done():
            self.answer.set_result(answer)


class Worker(asyncio.Protocol):
    """A worker process and the channel to it; it has at most one job. The process starts at once."""

    def __init__(self, settings: Settings, pool: Pool):
        self._pool, self._timeout_seconds = pool, settings.timeout_seconds
        self._channel, others = socket.socketpair()
        with others:
            self.process = subprocess.Popen(
                [sys.executable, WORKER, str(others.fileno())],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": str(settings.threads)},
                pass_fds=[others.fileno()],
            )
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._job: Job | None = None
        self.lost = asyncio.Event()

    async def connect(self) -> bool:
        """Wait until the process has answered a picture; False where it ended instead. Raises StartError."""
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        self._transport, _ = await loop.create_unix_connection(lambda: self, sock=self._channel)
        return await self._ready

    def take(self, job: Job) -> None:
        """Send the process a job; it has none now."""
        self._job, job.started = job, monotonic()
        self._timer = asyncio.get_running_loop().call_later(self._timeout_seconds, self._time_out)
        self._transport.write(job.request)

    async def end(self) -> None:
        """End the process, by force where it does not go by itself, and see it gone."""
        if self._transport:
            self._transport.abort()
        else:
            self._channel.close()
        await asyncio.to_thread(self._reap)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < HEAD.size:
            return
        fields_length, body_length = HEAD.unpack_from(self._received)
        body_start = HEAD.size + fields_length
        if len(self._received) < body_start + body_length:
            return
        fields, body = json.loads(self._received[HEAD.size : body_start]), bytes(self._received[body_start:])
        self._received.clear()
        if "failed" in fields:
            self._ready.set_exception(StartError(fields["failed"]))
        elif "ready" in fields:
            self._ready.set_result(True)
        elif self._job:
            self._end_job(Answer(fields["status"], body, fields["content_type"], tuple(fields["headers"].items())))
            self._pool.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.leave(self)
        self._end_job(WORKER_LOST)
        if not self._ready.done():
            self._ready.set_result(False)
        self.lost.set()

    def _time_out(self) -> None:
        self._end_job(TIMED_OUT)
        self.process.kill()

    def _end_job(self, answer: Answer) -> None:
        if self._job:
            self._timer.cancel()
            self._job, job = None, self._job
            job.end(answer)

    def _reap(self) -> None:
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Pool:
    """As many workers as the settings say, each replaced when it is lost, and the jobs that wait for one."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._ready: set[Worker] = set()
        self._idle: deque[Worker] = deque()
        self._waiting: deque[Job] = deque()
        # They load the model while the front loads what it needs itself.
        self._first = [Worker(settings, self) for _ in range(settings.workers)]

    @property
    def refusal(self) -> Answer | None:
        """Why a request that came now is refused, if it is."""
        if not self._ready:
            return NOT_READY
        full = not self._idle and len(self._waiting) >= self._settings.queue_length
        return QUEUE_FULL if full else None

    @property
    def ready(self) -> bool:
        """Whether there is a worker that has answered a picture."""
        return bool(self._ready)

    def submit(self, job: Job) -> None:
        """Have a worker answer a job, now or when its turn comes."""
        if self._idle:
            self._idle.popleft().take(job)
        else:
            self._waiting.append(job)

    def withdraw(self, job: Job) -> None:
        """Forget a job whose client is gone. One in work goes on; nobody reads its answer."""
        if job in self._waiting:
            self._waiting.remove(job)

    def free(self, worker: Worker) -> None:
        """Take a worker for the next job."""
        if self._waiting:
            worker.take(self._waiting.popleft())
        else:
            self._idle.append(worker)

    def leave(self, worker: Worker) -> None:
        """Give a lost worker no more jobs."""
        self._ready.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)

    async def run(self) -> None:
        """Keep the workers at work until cancelled. Raises a group of StartErrors where the first cannot be started."""
        async with asyncio.TaskGroup() as group:
            for worker in self._first:
                group.create_task(self._keep(worker))

    async def _keep(self, worker: Worker) -> None:
        await self._employ(worker)
        pause = 0
        while True:
            await asyncio.sleep(pause)
            try:
                await self._employ(Worker(self._settings, self))
                pause = 0
            except (StartError, OSError) as error:
                log(error=f"a lost worker cannot be replaced: {error}")
                pause = min(2 * pause or 1, LONGEST_PAUSE_SECONDS)
                while self._waiting and not self._ready:
                    self._waiting.popleft().end(NOT_READY)

    async def _employ(self, worker: Worker) -> None:
        """Have a worker answer jobs until it is lost. Raises StartError."""
        ready, seconds = False, self._settings.startup_seconds
        try:
            async with asyncio.timeout(seconds):
                ready = await worker.connect()
            if ready and not worker.lost.is_set():
                self._ready.add(worker)
                self.free(worker)
                await worker.lost.wait()
        except TimeoutError:
            raise StartError(f"no answer to a picture within {seconds} s") from None
        finally:
            self.leave(worker)
            await worker.end()
        status = worker.process.returncode
        if not ready:
            raise StartError(f"the worker ended with status {status} before it was ready")
        log(error=f"worker {worker.process.pid} ended with status {status}: another takes its place")
