"""Rounds of measurements in turn, each in a fresh process, so that a noisy minute of the machine hits every side."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection

THREADS = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Seconds:
    """Of the clock, and of the processors in this process and the children that have ended."""

    wall: float
    cpu: float

    def times(self, factor: float) -> Seconds:
        """So many times as long."""
        return Seconds(self.wall * factor, self.cpu * factor)


class Stopwatch:
    """Runs from its making."""

    def __init__(self):
        self._start = _now()

    def read(self) -> Seconds:
        """What has passed."""
        now = _now()
        return Seconds(now.wall - self._start.wall, now.cpu - self._start.cpu)


def _now() -> Seconds:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Seconds(time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages))


def in_turn(
    rounds: int, works: Mapping[str, Callable[[], object]], call: Callable[[Callable[[], object]], object] | None = None
) -> dict[str, list]:
    """Call each work once a round, every other round backwards; returns each one's results, in the order of rounds.

    A work is importable by name (a module's function, or partial of one), and runs in a process of its own: no side
    finds the memory, the threads or the compiled code that another left. `call` runs a work in another way.
    """
    call = call or alone
    results = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works) if number % 2 == 0 else reversed(works):
            started = time.perf_counter()
            results[name].append(call(works[name]))
            print(f"round {number + 1}/{rounds} {name} {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return results


def alone(work: Callable[[], object], threads: int = THREADS) -> object:
    """The result of work() in a fresh process, whose libraries may use so many threads."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=partial(_run, work, threads, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{work} ended with status {process.exitcode}") from None
    finally:
        process.join()


def _run(work: Callable[[], object], threads: int, sender: Connection) -> None:
    # Here and not above: the printer of tables needs no torch.
    import torch

    torch.set_num_threads(threads)
    # What entry points print belongs to them; the bench's own output is the table.
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sender.send(work())
