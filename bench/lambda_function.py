"""The function in front of the endpoint: its cold start, warm invocations a second, and its memory.

Its package runs under AWS's own runtime client, by the local runner; the endpoint and the host of the picture are
stubs on loopback (lambda_stubs.py), so that what is measured is the function and what stands around it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench import lambda_start
from bench.table import Row, at_most
from bundle.archives import zip_bytes
from bundle.packages import lambda_files
from local.runtime import FunctionHost

PARTS = ("start", "throughput", "memory")
ROOT = Path(__file__).resolve().parents[1]
ARN = "arn:aws:lambda:us-east-1:123456789012:function:image-classifier"
ENVIRONMENTS = 5  # the reserved concurrency of terraform/environments/reference.tfvars
PER_SECOND = 1000
NOTHING = b"def lambda_handler(event, context):\n    return {'statusCode': 200}\n"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Load:
    """What `seconds` of invocations came to. cpu: seconds of the processors, by who spent them."""

    seconds: float = 0.0
    statuses: Counter = field(default_factory=Counter)
    cpu: Counter = field(default_factory=Counter)
    fetch: list[float] = field(default_factory=list)  # milliseconds
    endpoint: list[float] = field(default_factory=list)  # milliseconds

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds


class Setup:
    """A function's host beside the stubs."""

    def __init__(self, host: FunctionHost, stubs: subprocess.Popen, events: Sequence[bytes]):
        self.host, self.stubs, self.events = host, stubs, events
        self.load = Load()
        self.counting = threading.Lock()

    def invoke(self, invocations: int, callers: int) -> Load:
        """Let so many callers, each of whom waits for its answer, share the invocations."""
        self.load = load = Load()
        before, started = self._cpu(), time.perf_counter()
        events = itertools.islice(itertools.cycle(self.events), invocations)
        threads = [threading.Thread(target=self._call, args=(load, events)) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        load.seconds = time.perf_counter() - started
        load.cpu = self._cpu()
        load.cpu.subtract(before)
        return load

    def take_log(self, lines: list[str]) -> None:
        """Keep what the metrics tell of the time."""
        for line in lines:
            if '"EndpointLatency"' in line:
                metrics = json.loads(line)
                self.load.fetch += metrics["FetchLatency"]
                self.load.endpoint += metrics["EndpointLatency"]

    def resident_bytes(self) -> int:
        """Of the function's processes."""
        return sum(1024 * int(_status(pid)["VmRSS"].split()[0]) for pid in self.host.process_ids())

    def _call(self, load: Load, events: Iterator[bytes]) -> None:
        statuses = Counter()
        while event := next(events, None):
            statuses[json.loads(self.host.invoke(event).payload)["statusCode"]] += 1
        with self.counting:
            load.statuses += statuses

    def _cpu(self) -> Counter:
        functions = sum(map(_cpu_seconds, self.host.process_ids()))
        return Counter(function=functions, runner=time.process_time(), stubs=_cpu_seconds(self.stubs.pid))


@contextlib.contextmanager
def started(scratch: Path, environments: int, source: bytes | None = None) -> Iterator[Setup]:
    """A Setup for the project's package, or for one of a single module."""
    scratch.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "bench.lambda_stubs", str(scratch)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stubs:
        told = json.loads(stubs.stdout.readline())
        environment = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_ENDPOINT_URL": told["endpoint"],
            "ENDPOINT_NAME": "image-classifier",
            "PRIVATE_HOSTS": json.dumps([{"host": "127.0.0.1", "port": told["port"], "cidr": "127.0.0.1/32"}]),
            "SSL_CERT_FILE": told["ca_file"],
        }
        setup = None
        host = FunctionHost(
            zip_bytes({"handler.py": source}) if source else packaged(),
            "handler.lambda_handler",
            environment,
            timeout_seconds=30,
            memory_mb=512,
            max_environments=environments,
            function_arn=ARN,
            log_sink=lambda lines: setup.take_log(lines),
            state_dir=scratch,
        )
        setup = Setup(host, stubs, [json.dumps({"url": told["picture"]}).encode()])
        try:
            setup.invoke(100 * environments, environments)  # every environment is warm
            yield setup
        finally:
            host.stop()
            stubs.stdin.close()


def start(scratch: Path, quick: bool) -> list[Row]:
    """The import, structured logs and metrics included, beside boto3's plainest client."""
    package = scratch / "package"
    with zipfile.ZipFile(io.BytesIO(packaged())) as archive:
        archive.extractall(package)
    works = lambda_start.PLAIN, lambda_start.HANDLER, lambda_start.PACKAGED.format(str(package))
    found = lambda_start.in_turn(3 if quick else 9, *works)
    plain, ours, uncompiled = ([1000 * each.cpu for each in side] for side in found)
    return [
        at_most("function: CPU of a cold import, beside boto3's client", ours, plain, (1.0, 0.9), " ms"),
        at_most("... out of its package, nothing of it compiled", uncompiled, plain, unit=" ms"),
    ]


def packaged() -> bytes:
    """The zip that is uploaded."""
    return zip_bytes(lambda_files(ROOT, ROOT / "build" / "lambda-requirements"))


def throughput(scratch: Path, quick: bool) -> list[Row]:
    """Warm invocations, what they cost, and what the runner would do with a function that does nothing."""
    invocations = 2000 if quick else 10_000
    with started(scratch / "nothing", ENVIRONMENTS, NOTHING) as setup:
        ceiling = setup.invoke(invocations, ENVIRONMENTS)
    with started(scratch / "function", ENVIRONMENTS) as setup:
        load = setup.invoke(invocations, ENVIRONMENTS)
        alone = setup.invoke(invocations // 10, 1)
    return throughput_rows(load, alone, ceiling)


def throughput_rows(load: Load, alone: Load, ceiling: Load) -> list[Row]:
    """The rows of a load on all environments, of one after another, and of a function that does nothing."""
    failed = load.answered - load.statuses[200]
    held = load.per_second >= PER_SECOND and not failed
    cpu = {who: 1000 * spent / load.answered for who, spent in load.cpu.items()}
    return [
        Row(
            f"function: warm invocations, {ENVIRONMENTS} environments",
            f"{load.per_second:.0f}/s" + (f", {failed} failed" if failed else ""),
            hold=f"{PER_SECOND}/s",
            verdict="held" if held else "fell short",
        ),
        Row("... CPU of each: " + ", ".join(cpu), ", ".join(f"{spent:.2f}" for spent in cpu.values()) + " ms"),
        Row(
            f"... cores that {PER_SECOND}/s take, all of these on them", f"{sum(cpu.values()) * PER_SECOND / 1000:.1f}"
        ),
        Row("... one after another: fetch, endpoint", f"{median(alone.fetch):.2f}, {median(alone.endpoint):.2f} ms"),
        Row("... a function that does nothing", f"{ceiling.per_second:.0f}/s"),
    ]


def memory(scratch: Path, quick: bool) -> list[Row]:
    """One environment's resident memory, after its first thousand invocations and at the end."""
    invocations = 2000 if quick else 20_000
    first, last = resident_mib(scratch / "memory", 1000, invocations)
    what = f"function: memory after 1000 and {1000 + invocations} invocations"
    return [Row(what, f"{first:.1f}, {last:.1f} MiB ({100 * (last / first - 1):+.1f} %)")]


def resident_mib(scratch: Path, *invocations: int) -> list[float]:
    """One environment's memory after each of these numbers of invocations; every fourth is of a denied picture."""
    with started(scratch, 1) as setup:
        picture = setup.events[0]
        setup.events = [picture, picture, picture, picture.replace(b"https", b"http")]
        sizes = []
        for count in invocations:
            setup.invoke(count, 1)
            sizes.append(setup.resident_bytes() / 2**20)
    return sizes


def rows(quick: bool, scratch: Path, parts: Sequence[str]) -> list[Row]:
    """The table's, or of some parts of it."""
    found: list[Row] = []
    for name in parts:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found += {"start": start, "throughput": throughput, "memory": memory}[name](scratch, quick)
    return found


def _status(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def _cpu_seconds(pid: int) -> float:
    # The fields after the name, which may hold anything: utime and stime are the 14th and 15th of all.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
