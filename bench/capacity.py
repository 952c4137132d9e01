"""The capacity simulator beside SimPy and Ciw, its memory over a month of requests, and what a request costs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench import capacity_queue, memory, rounds
from bench.rounds import Seconds, Stopwatch
from bench.table import Row, at_most, compared, limited
from capacity import configuration, profile
from capacity.__main__ import REFERENCE
from capacity.shapes import poisson
from capacity.simulation import simulate
from capacity.system import system

PARTS = ("peers", "month", "growth")
PEERS = {
    "SimPy, processes and a Resource": (capacity_queue.simpy_processes, (3, 8)),
    "SimPy, callbacks alone": (capacity_queue.simpy_callbacks, (3, 8)),
    "Ciw": (capacity_queue.ciw_node, (6, 8)),
}
MONTH_MINUTES = 30 * 24 * 60
PER_SECOND = 2.0
MEMORY_LIMIT_MB = 500
GROWTH_LIMIT = (1.3, 1.1)


@dataclass(frozen=True)
class Scale:
    """How much is measured. few, many: requests between which the cost of one is compared."""

    rounds: int = 3
    requests: int = 500_000
    minutes: int = MONTH_MINUTES
    few: int = 100_000
    many: int = 10_000_000


QUICK = Scale(rounds=1, requests=50_000, minutes=MONTH_MINUTES // 30, many=1_000_000)


class Capacity:
    """The parts of the table."""

    def __init__(self, scale: Scale, scratch: Path):
        self.scale, self.scratch = scale, scratch

    def peers(self) -> list[Row]:
        """The queue that all of them can express. Raises RuntimeError where one answers otherwise than ours."""
        works = {"ours": capacity_queue.ours} | {name: work for name, (work, _) in PEERS.items()}
        requests = self.scale.requests
        found = rounds.in_turn(self.scale.rounds, {name: partial(work, requests) for name, work in works.items()})
        ours = found.pop("ours")
        for name, runs in found.items():
            if not np.allclose(runs[0].latency, ours[0].latency, rtol=0, atol=1e-6):
                raise RuntimeError(f"{name} answers other requests than ours, or after another time")
        seconds = {name: [run.seconds for run in runs] for name, runs in found.items()}
        own = [run.seconds for run in ours]
        return [
            compared(f"a queue, {requests:,} requests: {name}", own, seconds[name], PEERS[name][1]) for name in PEERS
        ]

    def month(self) -> list[Row]:
        """The whole command, its report included, which simulates a trace under both scale-in rules."""
        counts = np.random.default_rng(1).poisson(60 * PER_SECOND, self.scale.minutes)
        path = self.scratch / "month.csv"
        path.write_text("time,count\n" + "".join(f"{60 * minute},{count}\n" for minute, count in enumerate(counts)))
        command = [sys.executable, "-m", "capacity", "simulate", "--trace", path, "--config", REFERENCE]
        watch = Stopwatch()
        peak = memory.peak_bytes(list(map(str, command)), stdout=subprocess.DEVNULL, cwd=REFERENCE.parents[2])
        seconds = watch.read()
        what = f"simulate, the whole command, {counts.sum():,} requests in {self.scale.minutes / 1440:g} days"
        return [
            limited(f"{what}: memory", peak / 1e6, MEMORY_LIMIT_MB, " MB"),
            Row("... its time, both scale-in rules", f"{seconds.wall:.1f} s, CPU {seconds.cpu:.1f} s"),
        ]

    def growth(self) -> list[Row]:
        """What a request costs, in CPU seconds, in a short trace and in a long one."""
        few, many = self.scale.few, self.scale.many
        # The short one again and again, for a moment of the machine's is not the cost of a request.
        works = {count: partial(cost, count, repeats=max(1, many // (10 * count))) for count in (few, many)}
        found = rounds.in_turn(self.scale.rounds, {f"{count:,}": work for count, work in works.items()})
        microseconds = {count: [seconds.cpu * 1e6 for seconds in found[f"{count:,}"]] for count in (few, many)}
        what = f"CPU of a request, of {many:,} (ours) over of {few:,} (reference)"
        whole = np.median([seconds.wall for seconds in found[f"{many:,}"]]) * many
        return [
            at_most(what, microseconds[many], microseconds[few], GROWTH_LIMIT, " µs"),
            Row(f"... the time of {many:,}", f"{whole:.1f} s"),
        ]


def cost(requests: int, repeats: int) -> Seconds:
    """Of one request through the reference configuration, in a trace of about so many."""
    configured = configuration.read([REFERENCE])
    measured = profile.assumed(configured.endpoint_instance_type)
    simulated = system(configured, measured, "proportional")
    trace = poisson(1, PER_SECOND, requests / PER_SECOND)
    services = measured.draw(np.random.default_rng(2), len(trace.arrivals))
    watch = Stopwatch()
    for _ in range(repeats):
        simulate(trace, services, simulated)
    return watch.read().times(1 / repeats / len(services))


def rows(quick: bool, scratch: Path, parts: Sequence[str]) -> list[Row]:
    """The table's, or of some parts of it."""
    return measured(QUICK if quick else Scale(), scratch, parts)


def measured(scale: Scale, scratch: Path, parts: Sequence[str]) -> list[Row]:
    """Everything that the parts, names of PARTS, tell at this scale."""
    capacity, found = Capacity(scale, scratch), []
    for name in parts:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found += getattr(capacity, name)()
    return found
