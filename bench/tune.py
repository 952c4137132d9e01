"""Find the workers and threads that serve an archive fastest on this machine, and write them for the endpoint.

    python -m bench.tune build/release/model.tar.gz [--limit-milliseconds 200] [--output endpoint.auto.tfvars]

Every division of the physical cores into workers and threads is started as the endpoint would be, and loaded with one
client a worker, then twice as many, as long as 99 of 100 answers come within the limit. The fastest wins; its queue is
as long as can be worked off within the limit. Run it on the instance type that will serve: what it finds holds there.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from settings import physical_cores

from bench.pictures import photograph
from bench.serving import servers
from bench.serving.load import CONTENT_TYPES, Load
from local.hosting import HostingError, unpack

VARIABLE = "container_environment"


@dataclass(frozen=True)
class Choice:
    """One division of the cores, under its fastest load within the limit: None where there is none."""

    workers: int
    threads: int
    load: Load | None

    def queue_length(self, limit_milliseconds: float) -> int:
        """Requests that can wait and still be answered within the limit, by the measured speed; at least 1."""
        inside = self.load.per_second * limit_milliseconds / 1000
        return max(1, int(inside) - self.workers)

    def environment(self, limit_milliseconds: float) -> dict[str, str]:
        """The container's variables."""
        return {
            "OMP_NUM_THREADS": str(self.threads),
            "SAGEMAKER_MODEL_SERVER_WORKERS": str(self.workers),
            "SERVING_QUEUE_LENGTH": str(self.queue_length(limit_milliseconds)),
        }


class TuneError(Exception):
    """Nothing to choose from; one line."""


def divisions(cores: int) -> list[tuple[int, int]]:
    """(workers, threads) that leave no core idle and give none to two threads."""
    return [(cores // threads, threads) for threads in range(1, cores + 1) if cores % threads == 0]


def fastest_within(limit_milliseconds: float, workers: int, measure: Callable[[int], Load]) -> Load | None:
    """The fastest of the loads by measure(clients), clients doubling from `workers`, whose p99 keeps the limit.

    It ends at the first that does not, or that is hardly faster than the one before. A load with a lost or refused
    request keeps no limit.
    """
    best, clients = None, workers
    while True:
        load = measure(clients)
        if not load.p99 <= limit_milliseconds or load.lost or set(load.statuses) != {"200"}:
            return best
        if best and load.per_second < 1.02 * best.per_second:
            return max(best, load, key=lambda each: each.per_second)
        best, clients = load, 2 * clients


def chosen(choices: Iterable[Choice], limit_milliseconds: float) -> Choice:
    """The fastest; raises TuneError where none keeps the limit."""
    keeping = [choice for choice in choices if choice.load]
    if not keeping:
        raise TuneError(
            f"--limit-milliseconds {limit_milliseconds:g}: no number of workers and threads answers 99 of 100 in that "
            "time: raise it, or pack with --int8"
        )
    return max(keeping, key=lambda choice: choice.load.per_second)


def tfvars(environment: dict[str, str]) -> str:
    """The variable that the endpoint's containers get their environment from."""
    width = max(map(len, environment))
    lines = [f'  {name.ljust(width)} = "{value}"' for name, value in sorted(environment.items())]
    return "\n".join([f"{VARIABLE} = {{", *lines, "}", ""])


def table(choices: Sequence[Choice], limit_milliseconds: float) -> str:
    """What was measured, the fastest marked."""
    best = chosen(choices, limit_milliseconds)
    lines = [f"{'workers':>7} {'threads':>7} {'clients':>7} {'pictures/s':>10} {'p50 ms':>7} {'p99 ms':>7}"]
    for each in choices:
        start = f"{each.workers:7} {each.threads:7} "
        if each.load:
            start += f"{each.load.clients:7} {each.load.per_second:10.1f} {each.load.p50:7.1f} {each.load.p99:7.1f}"
        else:
            start += f"{'over the limit':>16}"
        lines.append(start + ("  fastest" if each is best else ""))
    return "\n".join(lines)


def measured(base: Path, pictures: list[Path], limit_milliseconds: float, seconds: float, state: Path) -> list[Choice]:
    """Every division of this machine's cores, serving base/model."""
    found = []
    for workers, threads in divisions(physical_cores()):
        settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(workers), "OMP_NUM_THREADS": str(threads)}
        with servers.running(servers.Server(base, settings=settings), pictures[0], state) as server:
            load = fastest_within(limit_milliseconds, workers, lambda clients: server.load(pictures, clients, seconds))
        print(f"{workers} workers of {threads} threads: {load}", file=sys.stderr, flush=True)
        found.append(Choice(workers, threads, load))
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tune", description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="model.tar.gz")
    parser.add_argument("--limit-milliseconds", type=float, default=200, help="for 99 of 100 answers (%(default)g)")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="JPEGs and PNGs to send (photographs are made)")
    parser.add_argument("--seconds", type=float, default=6, help="of each load (%(default)g)")
    parser.add_argument("--output", type=Path, default=Path("endpoint.auto.tfvars"), help="(%(default)s)")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="tune-") as scratch:
        folder = Path(scratch)
        try:
            unpack(given.archive, folder / "base" / "model")
            pictures = _pictures(given.pictures, folder)
            choices = measured(folder / "base", pictures, given.limit_milliseconds, given.seconds, folder / "state")
            best = chosen(choices, given.limit_milliseconds)
        except (TuneError, HostingError, servers.ServerError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    partial = given.output.with_name(f".{given.output.name}.partial")
    partial.write_text(tfvars(best.environment(given.limit_milliseconds)))
    os.replace(partial, given.output)
    print(table(choices, given.limit_milliseconds), f"wrote {given.output}", sep="\n")
    return 0


def _pictures(folder: Path | None, scratch: Path) -> list[Path]:
    if folder:
        if found := sorted(path for path in folder.rglob("*") if path.suffix in CONTENT_TYPES):
            return found[:64]
        raise TuneError(f"--pictures {folder}: no {' or '.join(CONTENT_TYPES)} there: give a folder of pictures")
    rng = np.random.default_rng(0)
    paths = [scratch / f"{number}.jpg" for number in range(16)]
    for path in paths:
        path.write_bytes(photograph(500, 375, rng))
    return paths


if __name__ == "__main__":
    sys.exit(main())
