"""The server's HTTP side as an ASGI application: /ping and /invocations, and nothing else."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable

from pool import NOT_READY, Answer, Job, Pool, refusal
from settings import Settings
from worker import log

Receive = Callable[[], Awaitable[dict]]
Send = Callable[[dict], Awaitable[None]]

ID_HEADERS = ("x-amzn-sagemaker-inference-id", "x-request-id")
LONGEST_ID = 64  # SageMaker's own limit
ANSWERED_BY = {"/ping": ("GET", "HEAD"), "/invocations": ("POST",)}
PONG = Answer(200, b"")
GONE = Answer(499, b"")  # never sent; the usual status in logs for a client that did not wait
SLOW = refusal(408, "request_timeout", "the body did not come in time")


class Refused(Exception):
    """A request that gets no worker, and what it gets instead."""

    def __init__(self, answer: Answer):
        self.answer = answer


class Front:
    """The ASGI application."""

    def __init__(self, pool: Pool, settings: Settings):
        self._pool, self._settings = pool, settings
        self._too_large = refusal(413, "request_entity_too_large", f"a body has at most {settings.most_bytes} bytes")

    async def __call__(self, scope: dict, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request_id = request_id_of(headers)
        if path not in ANSWERED_BY:
            answer = refusal(404, "not_found", "there are /ping and /invocations only")
        elif method not in (allowed := ANSWERED_BY[path]):
            answer = refusal(405, "method_not_allowed", f"{path} takes {' and '.join(allowed)}")
            answer = answer._replace(headers=(("allow", ", ".join(allowed)),))
        elif path == "/ping":
            answer = PONG if self._pool.ready else NOT_READY
        else:
            answer = await self._invoke(request_id, headers, receive)
        if answer is not GONE:
            await respond(send, answer, request_id)

    async def _invoke(self, request_id: str, headers: dict[str, str], receive: Receive) -> Answer:
        """One access-log line, whatever happens: bytes are the body's; a request that got no worker took no time."""
        body, job = b"", None
        try:
            if refused := self._pool.refusal:
                raise Refused(refused)
            if int(headers.get("content-length", 0)) > self._settings.most_bytes:
                raise Refused(self._too_large)
            body = await self._body(receive)
            # Others may have come while it was read.
            if refused := self._pool.refusal:
                raise Refused(refused)
            job = Job(request_id, headers, body)
            self._pool.submit(job)
            answer = await self._answer(job, receive)
        except Refused as refused:
            answer = refused.answer
        log(
            request_id=request_id,
            status=answer.status,
            bytes=len(body),
            queue_milliseconds=milliseconds(job and job.queued, job and (job.started or job.ended)),
            work_milliseconds=milliseconds(job and job.started, job and job.ended),
        )
        return answer

    async def _body(self, receive: Receive) -> bytes:
        """The whole body, which no worker waits for. Raises Refused."""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                while True:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise Refused(GONE)
                    parts.append(event.get("body", b""))
                    size += len(parts[-1])
                    if size > self._settings.most_bytes:
                        raise Refused(self._too_large)
                    if not event.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(SLOW) from None

    async def _answer(self, job: Job, receive: Receive) -> Answer:
        """The answer to a job. Raises Refused where its client is gone before its turn came."""
        if job.started is None:
            # The body is read: what comes now can only be the end of the connection.
            gone = asyncio.ensure_future(receive())
            await asyncio.wait((job.answer, gone), return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not job.answer.done():
                self._pool.withdraw(job)
                raise Refused(GONE)
        return await job.answer


async def respond(send: Send, answer: Answer, request_id: str) -> None:
    """Send an answer."""
    headers = [
        (b"content-length", b"%d" % len(answer.body)),
        (b"x-request-id", request_id.encode("ascii")),
        *((header_value(name), header_value(value)) for name, value in answer.headers),
    ]
    if answer.body:
        headers.append((b"content-type", header_value(answer.content_type)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def request_id_of(headers: dict[str, str]) -> str:
    """The id the client gave, of at most 64 visible ASCII characters and with _ for any other, or a new one."""
    given = next((headers[name] for name in ID_HEADERS if headers.get(name)), None)
    return re.sub(r"[^!-~]", "_", given[:LONGEST_ID]) if given else secrets.token_hex(16)


def header_value(value: str) -> bytes:
    """Text that ends no header line, whatever the model's code makes of what a client sent."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", value).encode("latin-1", "replace")


def milliseconds(start: float | None, end: float | None) -> float:
    """Between two moments in seconds; 0 where one never came."""
    return round(1000 * (end - start), 3) if start is not None and end is not None else 0.0
