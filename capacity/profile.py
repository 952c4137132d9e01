"""What a request takes: service times of an endpoint's instance, and what the Lambda in front adds."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from capacity.errors import UserError


@dataclass(frozen=True)
class Profile:
    """Service times of one instance type.

    service_seconds: ascending quantiles of the time a worker takes for a request, evenly spaced from the 0th to the
    100th percentile; shape (quantiles,), at least two.
    workers: requests an instance works on at a time; queue_length: requests that wait, any more are answered 503.
    lambda_seconds: what the function takes beside waiting for the endpoint (fetching the picture, above all).
    cold_start_seconds: what a new execution environment adds.
    max_rps: the most requests a second that an instance was seen to answer with a p99 within slo_p99_ms; None where
    that was not measured. date, machine: when and where it was measured.
    slowdown: how many times as long as alone a request takes under load: service_seconds are those under load, those of
    a file a request's that is alone. assumed: which of FUNCTION's fields a file left out: no server tells them.
    """

    instance_type: str
    source: str
    service_seconds: np.ndarray
    workers: int = 2
    queue_length: int = 64
    lambda_seconds: float = 0.1
    cold_start_seconds: float = 1.0
    max_rps: float | None = None
    slo_p99_ms: float | None = None
    slowdown: float = 1.0
    date: str = ""
    machine: str = ""
    assumed: tuple[str, ...] = ()

    def draw(self, draws: np.random.Generator, count: int) -> np.ndarray:
        """Service times in seconds of `count` requests, shape (count,)."""
        return np.interp(draws.random(count), np.linspace(0, 1, len(self.service_seconds)), self.service_seconds)


# 20 requests a second from two workers: the middle of the 10 to 30 expected of a ResNet-50 on four virtual processors.
ASSUMED = Profile(
    instance_type="",
    source="assumed, not measured",
    service_seconds=np.array([0.080, 0.086, 0.090, 0.093, 0.096, 0.099, 0.102, 0.105, 0.109, 0.115, 0.145]),
)

# The least of each number; a whole number where that is one.
NUMBERS = {
    "workers": 1,
    "queue_length": 0,
    "lambda_seconds": 0.0,
    "cold_start_seconds": 0.0,
    "max_rps": 0.0,
    "slo_p99_ms": 0.0,
    "slowdown": 1.0,
}
WORDS = ("source", "date", "machine")
FUNCTION = ("lambda_seconds", "cold_start_seconds")


def assumed(instance_type: str) -> Profile:
    """The profile where none is given: guesses, and called so in every report."""
    return replace(ASSUMED, instance_type=instance_type)


def read(path: Path, instance_type: str | None = None) -> Profile:
    """The profile in a JSON file, whose keys are Profile's fields; those with a default may be left out.

    instance_type: the endpoint's, which it must be of; None takes any.

    Raises UserError, naming file and line, for another instance type than the endpoint's and for values that are none.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}:1: not a profile: expected an object with instance_type and service_seconds")

    def line(key: str) -> int:
        return text[: max(text.find(f'"{key}"'), 0)].count("\n") + 1

    for key in content.keys() - NUMBERS.keys() - {"instance_type", "service_seconds", *WORDS}:
        raise UserError(f"{path}:{line(key)}: {key} is no part of a profile: remove it")
    measured_on = content.get("instance_type")
    if instance_type is None and (not isinstance(measured_on, str) or not measured_on.startswith("ml.")):
        raise UserError(
            f"{path}:{line('instance_type')}: instance_type is {measured_on!r}: give one such as ml.m5.xlarge"
        )
    if measured_on != (instance_type or measured_on):
        raise UserError(
            f"{path}:{line('instance_type')}: measured on {measured_on}, the endpoint runs on "
            f"{instance_type}: give a profile of that type"
        )
    service = content.get("service_seconds")
    if not isinstance(service, list) or len(service) < 2 or not all(_is_number(value) for value in service):
        raise UserError(f"{path}:{line('service_seconds')}: service_seconds is no list of two or more positive numbers")
    if service != sorted(service) or service[0] <= 0:
        raise UserError(
            f"{path}:{line('service_seconds')}: service_seconds must ascend from above 0: they are quantiles"
        )
    numbers = {key: content[key] for key in NUMBERS if key in content}
    for key, value in numbers.items():
        least = NUMBERS[key]
        if not _is_number(value) or value < least or type(least)(value) != value:
            kind = "whole number" if isinstance(least, int) else "number"
            raise UserError(f"{path}:{line(key)}: {key} is {value!r}: give a {kind} from {least:g}")
        numbers[key] = type(least)(value)  # 2.0 is a whole number too
    words = {"source": str(path)} | {key: content[key] for key in WORDS if key in content}
    for key, value in words.items():
        if not isinstance(value, str):
            raise UserError(f"{path}:{line(key)}: {key} is {value!r}: give a text")
    assumed = tuple(name for name in FUNCTION if name not in content)
    service_seconds = np.array(service, dtype=float) * numbers.get("slowdown", 1.0)
    return Profile(measured_on, service_seconds=service_seconds, **numbers, **words, assumed=assumed)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
