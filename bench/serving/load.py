"""A closed loop of HTTP clients: each sends its next picture when the answer to its last one has come.

    python -m bench.serving.load PORT PICTURE [PICTURE ...] [--clients 4] [--warm-up 2] [--seconds 6]

It takes a process of its own and the standard library alone, so that it costs the server little. Connections are kept
alive. A refusal that says Retry-After is obeyed, up to LONGEST_WAIT_SECONDS. Every request is accounted for: answered,
with its status, or lost. One JSON object goes to stdout: the fields of Load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from capacity import connection as http

ROOT = Path(__file__).resolve().parents[2]
LONGEST_WAIT_SECONDS = 1.0
ANSWER_SECONDS = 60.0
CONTENT_TYPES = {".jpg": "image/jpeg", ".png": "image/png"}


@dataclass(frozen=True)
class Load:
    """What the clients saw.

    per_second: answers with 200, between the first and the last of the measured seconds. p50, p99: of the same, in
    milliseconds. statuses: of all answers, those before and after the measured seconds included. lost: requests
    without an answer. client_cpu: share of one core that the clients took.
    """

    clients: int
    per_second: float
    p50: float
    p99: float
    statuses: dict[str, int]
    lost: int
    client_cpu: float


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; nan of none."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else float("nan")


def run(port: int, pictures: Sequence[Path], clients: int, seconds: float, warm_up: float = 2.0) -> Load:
    """Load a server on this machine from another process; raises CalledProcessError where the clients fail."""
    command = [sys.executable, "-m", "bench.serving.load", port, *pictures, "--clients", clients]
    command += ["--seconds", seconds, "--warm-up", warm_up]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True, env=environment)
    return Load(**json.loads(done.stdout))


class Clients:
    """Several clients of one server, and what they were answered."""

    def __init__(self, port: int, pictures: Sequence[Path]):
        self.port = port
        self.requests = [_request(path) for path in pictures]
        self.statuses: Counter[str] = Counter()
        self.lost = 0
        self.served: list[tuple[float, float]] = []  # (when, how long), both in seconds, of answers with 200

    async def work(self, first: int, until: float) -> None:
        """One client, which begins with picture `first` and sends nothing after `until` (time.monotonic)."""
        connection = None
        number = first
        while time.monotonic() < until:
            request = self.requests[number % len(self.requests)]
            number += 1
            started = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    connection = connection or await asyncio.open_connection("127.0.0.1", self.port)
                    status, headers, _ = await http.exchange(connection, request)
            except (OSError, EOFError, TimeoutError, ValueError):
                self.lost += 1
                connection = await http.close(connection)
                await asyncio.sleep(0.1)
                continue
            self.statuses[str(status)] += 1
            if status == 200:
                ended = time.monotonic()
                self.served.append((ended, ended - started))
            if headers.get("connection", "").lower() == "close":
                connection = await http.close(connection)
            if "retry-after" in headers:
                with suppress(ValueError):
                    await asyncio.sleep(min(float(headers["retry-after"]), LONGEST_WAIT_SECONDS))
        await http.close(connection)


async def measure(port: int, pictures: Sequence[Path], clients: int, seconds: float, warm_up: float) -> Load:
    """Load the server for `warm_up` + `seconds`, and tell of the latter."""
    crowd, started = Clients(port, pictures), time.monotonic()
    begin, end = started + warm_up, started + warm_up + seconds
    await asyncio.gather(*(crowd.work(number, end) for number in range(clients)))
    cpu = time.process_time() / (time.monotonic() - started)
    inside = [(when, lasted) for when, lasted in crowd.served if begin <= when < end]
    moments, durations = [when for when, _ in inside], [1000 * lasted for _, lasted in inside]
    # From answer to answer: counted over the whole time, a slow server's last picture would half count at random.
    per_second = (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 else len(moments) / seconds
    return Load(
        clients,
        per_second,
        percentile(durations, 0.5),
        percentile(durations, 0.99),
        dict(sorted(crowd.statuses.items())),
        crowd.lost,
        cpu,
    )


def _request(path: Path) -> bytes:
    body = path.read_bytes()
    head = (
        "POST /invocations HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
        f"Content-Type: {CONTENT_TYPES[path.suffix]}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--warm-up", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    load = asyncio.run(measure(given.port, given.pictures, given.clients, given.seconds, given.warm_up))
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
