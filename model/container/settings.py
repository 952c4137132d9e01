"""What the server is told by its environment, and what it makes of the machine where it is told nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

MODES = ("throughput", "latency")
QUEUE_PLACES_PER_WORKER = 32
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


class Mistake(Exception):
    """What is wrong with the settings, and the remedy, in one line."""


@dataclass(frozen=True)
class Settings:
    """The server's settings; serve.py says which variable each is and what it is where that is not given."""

    model_dir: Path
    program: str
    address: str
    port: int
    mode: str
    cores: int
    workers: int
    threads: int
    queue_length: int
    timeout_seconds: int
    startup_seconds: int
    most_bytes: int

    def __str__(self) -> str:
        return (
            f"serving {self.model_dir} on {self.address}:{self.port}: {self.mode} mode, {self.cores} physical cores, "
            f"{self.workers} workers of {self.threads} threads, queue of {self.queue_length}, "
            f"{self.timeout_seconds} s and {self.most_bytes} bytes a request"
        )


def settings_from(variables: Mapping[str, str], cores: int) -> Settings:
    """The settings in these environment variables, for a machine of `cores` physical cores. Raises Mistake."""

    def whole(name: str, default: int, most: int = 1_000_000) -> int:
        value = variables.get(name) or str(default)
        if not (value.isascii() and value.isdecimal() and 1 <= int(value) <= most):
            raise Mistake(f"{name}={value}: give a whole number from 1 to {most}")
        return int(value)

    model_dir = Path(variables.get("SAGEMAKER_BASE_DIR", "/opt/ml"), "model")
    program = variables.get("SAGEMAKER_PROGRAM") or "inference.py"
    if not (path := model_dir / "code" / program).with_suffix(".py").is_file():
        raise Mistake(f"no {path}: unpack the model archive into {model_dir}")
    mode = variables.get("SERVING_MODE") or MODES[0]
    if mode not in MODES:
        raise Mistake(f"SERVING_MODE={mode}: give {' or '.join(MODES)}")
    workers = whole("SAGEMAKER_MODEL_SERVER_WORKERS", cores if mode == "throughput" else 1, 1000)
    return Settings(
        model_dir=model_dir,
        program=program,
        address=variables.get("BIND_ADDRESS") or "0.0.0.0",
        port=whole("SAGEMAKER_BIND_TO_PORT", 8080, 65_535),
        mode=mode,
        cores=cores,
        workers=workers,
        # More threads than cores make every one of them wait for the others.
        threads=whole("OMP_NUM_THREADS", max(1, cores // workers), 1000),
        queue_length=whole("SERVING_QUEUE_LENGTH", QUEUE_PLACES_PER_WORKER * workers),
        timeout_seconds=whole("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", 60),
        startup_seconds=whole("SAGEMAKER_STARTUP_TIMEOUT", 600),
        most_bytes=whole("SAGEMAKER_MAX_PAYLOAD_IN_MB", 6, 1024) * 1024 * 1024,
    )


def physical_cores() -> int:
    """The cores this process may use: hyperthreads of one count once, for they add nothing to a convolution."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return max(1, min(len({_core_of(cpu) for cpu in usable}), _cpu_quota()))


def _core_of(cpu: int) -> str:
    """A name that the hyperthreads of one core share."""
    try:
        return Path(TOPOLOGY.format(cpu)).read_text()
    except OSError:
        return str(cpu)


def _cpu_quota() -> int:
    """CPUs that the container's limit is worth, rounded up."""
    try:
        quota, period = CPU_QUOTA.read_text().split()
        return ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no such file, or "max"
        return 1_000_000
