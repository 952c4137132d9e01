"""Serving: the endpoint's own server, beside the reference and other runtimes and servers, under the same load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from classifier.preprocessing import Preprocessing
from settings import physical_cores

from bench import machine, rounds
from bench.pictures import QUALITY, photograph
from bench.rounds import Seconds
from bench.serving import models, servers
from bench.serving.load import Load
from bench.serving.servers import PEERS, SCRIPTS, SERVE, TORCHSERVE, Server, ServerError
from bench.table import Row, at_most, compared, limited
from local.hosting import unpack

REFERENCE, OURS, INT8, LATENCY = "reference", "ours", "ours, int8", "ours, latency mode"
OPENVINO, BEHIND_MMS = "ours with OpenVINO", "ours behind multi-model-server"
BEHIND_TORCHSERVE = "ours behind TorchServe"

# What is done with a running server: under 4 clients, under 1, with large pictures, under 64.
FOUR, ONE, LARGE, MANY = "4 clients", "1 client", "large", "64 clients"
# What each part needs measured.
PARTS = {
    "throughput": {REFERENCE: {FOUR}, OURS: {FOUR}, INT8: {FOUR}},
    "latency": {OURS: {ONE}, LATENCY: {ONE}},
    "large": {REFERENCE: {LARGE}, OURS: {LARGE}},
    "start": {REFERENCE: set(), OURS: set()},
    "memory": {REFERENCE: {FOUR}, OURS: {FOUR}},
    "overload": {OURS: {FOUR, MANY}},
    "front": {OURS: {FOUR, ONE}, BEHIND_MMS: {FOUR, ONE}},
    "rivals": {OURS: {FOUR}, OPENVINO: {FOUR}, BEHIND_TORCHSERVE: {FOUR}},
}
PROMISED = {
    "fp32": (2, 2.5),
    "int8": (4.5, 7),
    "large": (2.5, 3.5),
    "start": (2.5, 5),
    "overload": (0.95, 1),
    "rivals": (0.95, 1),
}
OVER_BARE_LIMIT = (1.15, 1.08)
WORKER_MEGABYTES_LIMIT = (350, 250)
# What p99 may be above the time that a full queue takes: pictures and processors are not all alike.
TAIL = 1.25
# A dozen products each, because one that another process disturbs is no peak.
PEAKS = {
    "fp32": partial(machine.matmul_gflops, torch.float32, repeats=12),
    "int8": partial(machine.matmul_int8_gops, repeats=12),
}


@dataclass(frozen=True)
class Scale:
    """How much is measured. seconds: of each load, after `warm_up`. queue: length given to ours."""

    rounds: int = 3
    seconds: float = 6
    warm_up: float = 2
    pictures: int = 16
    classes: int = 100
    backbone: str = "resnet50"
    image_size: int = 224
    size: tuple[int, int] = (500, 375)
    large_size: tuple[int, int] = (4000, 3000)
    large_quality: int = 80  # 3 MB, what a telephone makes of as many pixels
    many: int = 64
    queue: int = 32


QUICK = Scale(rounds=1, seconds=3, warm_up=1.5)


@dataclass
class Visit:
    """What one start of a server told. Seconds are of 100 pictures; p50 in milliseconds, bare too."""

    start: Seconds
    loads: dict[str, Load] = field(default_factory=dict)
    hundred: dict[str, Seconds] = field(default_factory=dict)
    bare: float = float("nan")
    worker_bytes: int = 0
    all_bytes: int = 0


class Serving:
    """The parts of the table; archives and pictures lie in `scratch`."""

    def __init__(self, scale: Scale, scratch: Path, parts: Sequence[str]):
        self.scale, self.scratch = scale, scratch
        self.needed: dict[str, set[str]] = defaultdict(set)
        for part in parts:
            for name, loads in PARTS[part].items():
                self.needed[name] |= loads

    @cached_property
    def servers(self) -> dict[str, Server]:
        """Each that is needed, by its name; rivals whose environment is not installed are left out.

        Raises ServerError where ours or the reference's is not.
        """
        base, cores = self._base("ours"), physical_cores()
        toolkit = models.for_toolkit(base, self.scratch / "toolkit")
        script, peers, torchserve = SCRIPTS / "toolkit.py", PEERS / "bin" / "python", TORCHSERVE / "bin" / "python"
        queue = {"SERVING_QUEUE_LENGTH": str(self.scale.queue)}
        each_core = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(cores), "OMP_NUM_THREADS": "1"}
        all_cores = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "OMP_NUM_THREADS": str(cores)}
        openvino = {"SAGEMAKER_PROGRAM": "openvino_inference.py"}
        known = {
            OURS: Server(base, settings=queue),
            LATENCY: Server(base, settings=queue | all_cores),
            BEHIND_MMS: Server(toolkit, peers, script, each_core),
            OPENVINO: Server(toolkit, peers, SERVE, queue | each_core | openvino),
            BEHIND_TORCHSERVE: Server(toolkit, torchserve, script, each_core),
        }
        if INT8 in self.needed:
            known[INT8] = Server(self._base("int8", int8=True), settings=queue)
        if REFERENCE in self.needed:
            known[REFERENCE] = Server(models.for_reference(base, self.scratch / "reference"), peers, script)
        needed = {name: known[name] for name in self.needed}
        for name in {OURS, REFERENCE} & set(needed):
            if not needed[name].available():
                raise ServerError(f"{name}: no {needed[name].python}: `make bench` installs it")
        return {name: server for name, server in needed.items() if server.available()}

    @cached_property
    def pictures(self) -> list[Path]:
        """JPEGs of the usual size."""
        return self._write("picture", self.scale.pictures, self.scale.size)

    @cached_property
    def large_pictures(self) -> list[Path]:
        """JPEGs as cameras make them."""
        return self._write("large", 2, self.scale.large_size, self.scale.large_quality)

    @cached_property
    def pixels(self) -> Path:
        """The first picture as the network takes it, float32 [1, 3, image_size, image_size]."""
        description = json.loads((self.servers[OURS].base / "model" / "model.json").read_text())
        path = self.scratch / "pixels.npy"
        np.save(path, Preprocessing.from_json(description)(self.pictures[0])[np.newaxis])
        return path

    @cached_property
    def visits(self) -> dict[str, list[Visit]]:
        """Every server's, one item a round; between them the machine's peaks, and the runtimes alone."""
        works = {name: partial(self.visit, name) for name in self.servers}
        works |= {precision: partial(rounds.alone, peak) for precision, peak in PEAKS.items()}
        if OPENVINO in self.servers:
            works |= {runtime: partial(self.bare, runtime, 1) for runtime in ("onnxruntime", "openvino")}
        return rounds.in_turn(self.scale.rounds, works, call=lambda work: work())

    def visit(self, name: str) -> Visit:
        """Start a server, do with it what the parts need, and stop it."""
        scale, wanted = self.scale, self.needed[name]
        loads = {FOUR: (4, self.pictures), ONE: (1, self.pictures[:1])}
        loads |= {LARGE: (4, self.large_pictures), MANY: (scale.many, self.pictures)}
        with servers.running(self.servers[name], self.pictures[0], self.scratch / "state") as server:
            visit = Visit(Seconds(server.seconds_to_first_answer, server.cpu_seconds()))
            threads = int(self.servers[name].settings.get("OMP_NUM_THREADS", 1))
            for what, (clients, pictures) in loads.items():
                if what not in wanted:
                    continue
                # Before and after, because a slow minute may begin between them.
                before = self.bare("onnxruntime", threads) if what == ONE else 0
                started = server.cpu_seconds()
                load = visit.loads[what] = server.load(pictures, clients, scale.seconds, scale.warm_up)
                cpu = server.cpu_seconds() - started
                print(f"{name}, {what}: {load}", file=sys.stderr, flush=True)
                if not load.per_second:
                    raise ServerError(f"{name}, {what}: no answer with 200 in {scale.seconds:g} s")
                visit.hundred[what] = Seconds(100 / load.per_second, 100 * cpu / load.statuses["200"])
                if what == ONE:
                    visit.bare = 1000 * (before + self.bare("onnxruntime", threads)) / 2
            visit.worker_bytes, visit.all_bytes = server.largest_worker_bytes(), sum(server.memory().values())
        return visit

    def bare(self, runtime: str, threads: int) -> float:
        """Seconds of one forward pass of the first picture, without a server."""
        model = self.servers[OURS].base / "model"
        python = servers.HOSTING if runtime == "onnxruntime" else PEERS
        command = [python / "bin" / "python", SCRIPTS / "bare.py", runtime, model / "model.onnx", self.pixels]
        command += [threads, self.scale.seconds / 2]
        environment = os.environ | {"PYTHONPATH": str(model / "code"), "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(list(map(str, command)), env=environment, stdout=subprocess.PIPE, check=True)
        return float(done.stdout)

    def throughput(self) -> list[Row]:
        """Under 4 clients, and how much of the machine that takes."""
        rows = []
        for name, precision in ((OURS, "fp32"), (INT8, "int8")):
            what = f"throughput, 4 clients, {precision}"
            rows += self._against(what, name, REFERENCE, FOUR, PROMISED[precision], precision)
        client = max(
            load.client_cpu for name in self.servers for each in self.visits[name] for load in each.loads.values()
        )
        return [*rows, Row("... of a core, the load client at most", f"{client:.0%}")]

    def latency(self) -> list[Row]:
        """One client's p50 over the forward pass alone, with as many threads."""
        rows = []
        for name, what in ((OURS, "1 thread"), (LATENCY, "latency mode")):
            found = [(each.loads[ONE].p50, each.bare) for each in self.visits[name]]
            title = f"p50, 1 client, {what}, over the bare forward pass"
            rows.append(at_most(title, *zip(*found, strict=True), OVER_BARE_LIMIT if name == OURS else None, " ms"))
        return rows

    def large(self) -> list[Row]:
        """12 megapixels at full scale."""
        width, height = self.scale.large_size
        megabytes = self.large_pictures[0].stat().st_size / 1e6
        what = f"throughput, 4 clients, {width} x {height}, {megabytes:.1f} MB"
        return self._against(what, OURS, REFERENCE, LARGE, PROMISED["large"])

    def start(self) -> list[Row]:
        """From the process to its first answer."""
        ours, theirs = ([each.start for each in self.visits[name]] for name in (OURS, REFERENCE))
        return [compared("start to the first answer", ours, theirs, PROMISED["start"])]

    def memory(self) -> list[Row]:
        """After the loads."""
        worker, whole = (
            [median(getattr(each, what) for each in self.visits[name]) / 1e6 for name in (OURS, REFERENCE)]
            for what in ("worker_bytes", "all_bytes")
        )
        limit, aim = WORKER_MEGABYTES_LIMIT
        row = limited("memory of a worker", worker[0], limit, " MB", aim=aim)
        return [
            replace(row, reference=f"{worker[1]:.3g} MB"),
            Row("... of all its processes", f"{whole[0]:.3g} MB", f"{whole[1]:.3g} MB"),
        ]

    def overload(self) -> list[Row]:
        """More clients than the queue is long."""
        scale, many = self.scale, [each.loads[MANY] for each in self.visits[OURS]]
        four, full = ([each.hundred[what] for each in self.visits[OURS]] for what in (FOUR, MANY))
        p99 = median(load.p99 for load in many) / 1000
        waiting = scale.queue + physical_cores()
        bound = TAIL * waiting / median(load.per_second for load in many)
        statuses = {status for load in many for status in load.statuses}
        refused, lost = sum(load.statuses.get("503", 0) for load in many), sum(load.lost for load in many)
        held = refused and not lost and statuses == {"200", "503"}
        return [
            compared(f"{scale.many} clients, over 4", full, four, PROMISED["overload"], pictures=100),
            limited(f"... p99, queue of {scale.queue}", p99, bound, " s"),
            Row(
                "... answered, refused with 503, lost",
                f"{sum(load.statuses.get('200', 0) for load in many)}, {refused}, {lost}",
                hold="some refused, none lost",
                verdict="held" if held else "fell short",
            ),
        ]

    def front(self) -> list[Row]:
        """The same workers behind the toolkit's own server."""
        if BEHIND_MMS not in self.servers:
            return [Row(f"({BEHIND_MMS}: .venv-bench is not installed)", "")]
        p50 = [[each.loads[ONE].p50 for each in self.visits[name]] for name in (OURS, BEHIND_MMS)]
        return [
            *self._against(f"front server, 4 clients, against {BEHIND_MMS}", OURS, BEHIND_MMS, FOUR)[:1],
            at_most("... p50, 1 client", *p50, None, " ms"),
            Row("... start to the first answer", *(f"{self._start(name):.1f} s" for name in (OURS, BEHIND_MMS))),
        ]

    def rivals(self) -> list[Row]:
        """Other runtimes and servers with the same network, each at its best number of workers and threads."""
        rows = []
        for name in (OPENVINO, BEHIND_TORCHSERVE):
            if name in self.servers:
                what = f"throughput, 4 clients, fp32, against {name}"
                rows += self._against(what, OURS, name, FOUR, PROMISED["rivals"])
            else:
                rows.append(Row(f"({name}: its environment is not installed)", ""))
        if OPENVINO in self.servers:
            bare = [[Seconds(each, each) for each in self.visits[name]] for name in ("onnxruntime", "openvino")]
            rows.append(compared("bare forward pass, 1 thread, against OpenVINO", *bare, pictures=1))
        return rows

    def _against(
        self,
        what: str,
        ours: str,
        theirs: str,
        load: str,
        promised: tuple[float, float] | None = None,
        precision: str = "fp32",
    ) -> list[Row]:
        """One server's speed against another's, and the network's arithmetic as a share of the machine's peak."""
        sides = [[each.hundred[load] for each in self.visits[name]] for name in (ours, theirs)]
        peak = max(self.visits[precision])
        per_picture = self.gflop / peak
        speeds = [median(each.loads[load].per_second for each in self.visits[name]) for name in (ours, theirs)]
        shares = [f"{speed * per_picture:.0%}" for speed in speeds]
        unit = "GFLOP/s" if precision == "fp32" else "G operations/s"
        if precision != "fp32":
            shares[1] = ""  # which computes in fp32
        return [
            compared(what, *sides, promised, pictures=100),
            Row(f"... of {peak:.0f} {unit}, {precision} matrix products", *shares),
        ]

    @cached_property
    def gflop(self) -> float:
        """Of one picture's forward pass."""
        return models.gflop(self.scale.backbone, self.scale.image_size)

    def _start(self, name: str) -> float:
        return median(each.start.wall for each in self.visits[name])

    def _base(self, name: str, int8: bool = False) -> Path:
        """An archive as train.py packs it, unpacked as SageMaker's /opt/ml has it."""
        scale = self.scale
        archive = models.pack(self.scratch / f"{name}-packed", scale.backbone, scale.image_size, scale.classes, int8)
        unpack(archive, self.scratch / name / "model")
        return self.scratch / name

    def _write(self, name: str, count: int, size: tuple[int, int], quality: int = QUALITY) -> list[Path]:
        rng = np.random.default_rng(0)
        paths = [self.scratch / f"{name}{number}.jpg" for number in range(count)]
        for path in paths:
            path.write_bytes(photograph(*size, rng, quality))
        return paths


def rows(quick: bool, scratch: Path, parts: Sequence[str]) -> list[Row]:
    """The table's, or of some parts of it. Ends the command where a server cannot be started."""
    try:
        return measured(QUICK if quick else Scale(), scratch, parts)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def measured(scale: Scale, scratch: Path, parts: Sequence[str]) -> list[Row]:
    """Everything that the parts, names of PARTS, tell at this scale."""
    serving = Serving(scale, scratch, parts)
    return [row for part in parts for row in getattr(serving, part)()]
