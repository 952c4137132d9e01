"""One HTTP/1.1 exchange on a connection of asyncio's that is kept alive, in the standard library alone.

A load client of several thousand requests must cost the server's machine as little as can be.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def exchange(connection: Connection, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send a request; status, headers (lower-case names) and body of the answer.

    Raises ValueError for what is no HTTP answer with a Content-Length (SageMaker and the servers here send no chunks),
    EOFError where the connection ends before it does, and OSError.
    """
    reader, writer = connection
    writer.write(request)
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.LimitOverrunError:
        raise ValueError("no end of the headers") from None
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    version, _, rest = head[0].partition(" ")
    if not version.startswith("HTTP/1.") or "content-length" not in headers:
        raise ValueError("no HTTP/1.1 answer with a Content-Length")
    return int(rest[:3]), headers, await reader.readexactly(int(headers["content-length"]))


def reusable(connection: Connection, headers: dict[str, str]) -> bool:
    """Whether another request may follow an answer with these headers."""
    return headers.get("connection", "").lower() != "close" and not connection[0].at_eof()


async def close(connection: Connection | None) -> None:
    """Close a connection, where there is one."""
    if connection:
        connection[1].close()
        with suppress(OSError):
            await connection[1].wait_closed()
