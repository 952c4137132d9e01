"""The figures of the stack that capacity and cost hang on, as Terraform would have them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capacity import tfvars
from capacity.errors import UserError
from capacity.schedule import ScheduledAction, parse, time_zone
from capacity.tfvars import TERRAFORM_DIR, Setting


@dataclass(frozen=True)
class Configuration:
    """Root variables by their own names, and what the modules' defaults add."""

    autoscaling_max_capacity: int
    autoscaling_min_capacity: int
    autoscaling_scale_in_cooldown_seconds: float
    autoscaling_scale_out_cooldown_seconds: float
    autoscaling_scheduled_actions: tuple[ScheduledAction, ...]
    autoscaling_target_invocations_per_minute: float
    endpoint_instance_type: str
    interface_endpoints: bool
    lambda_provisioned_concurrency: int
    lambda_reserved_concurrency: int | None
    network: Any
    notebook_instance_type: str
    region: str
    trainer_instance_type: str
    trainer_time_cap_seconds: float
    training_instance_type: str
    lambda_memory_mb: int
    lambda_timeout_seconds: float
    notebook_volume_gb: int
    places: dict[str, str] = field(compare=False)  # where each variable was set, `FILE:LINE`

    def place(self, name: str) -> str:
        return self.places.get(name, f"terraform/variables.tf, {name}")


def _number(least: float, whole: bool = False, nullable: bool = False) -> Callable[[Any], Any]:
    kind = f"a {'whole ' if whole else ''}number from {least:g}"

    def read(value: Any) -> Any:
        if value is None and nullable:
            return None
        try:  # a number in quotes is one to Terraform too
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or number < least or (whole and number != int(number)):
            raise ValueError(f"give {kind}{' or null' if nullable else ''}")
        return int(number) if whole else number

    return read


def _target(value: Any) -> float:
    target = _number(0)(value)
    if target == 0:
        raise ValueError("give a number above 0")
    return target


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("give a text in quotes")
    return value


def _flag(value: Any) -> bool:
    if value not in (True, False, "true", "false"):
        raise ValueError("give true or false")
    return value in (True, "true")


BOUNDS = ("min_capacity", "max_capacity")


class PartError(ValueError):
    """What is wrong with a part of a value: which, what it is, the remedy."""


def _scheduled_actions(value: Any) -> tuple[ScheduledAction, ...]:
    """In the order of their names, as Terraform has a map."""
    if not isinstance(value, dict):
        raise ValueError("give a map of scheduled actions by name")
    return tuple(_scheduled_action(name, value[name]) for name in sorted(value, key=str))


def _scheduled_action(name: str, value: Any) -> ScheduledAction:
    place = f'["{name}"]'
    necessary = {"schedule", *BOUNDS}
    if not isinstance(value, dict) or not necessary <= value.keys() <= necessary | {"timezone"}:
        raise PartError(place, value, "give schedule, min_capacity, max_capacity and, where not UTC, timezone")
    value = value if value.get("timezone") is not None else value | {"timezone": "UTC"}

    def part(key: str, read: Callable[[Any], Any]) -> Any:
        try:
            return read(value[key])
        except ValueError as error:
            raise PartError(f"{place}.{key}", value[key], str(error)) from None

    part("timezone", lambda said: time_zone(_text(said)))
    minimum, maximum = (part(bound, _number(1, whole=True)) for bound in BOUNDS)
    if minimum > maximum:
        raise PartError(f"{place}.min_capacity", minimum, f"its max_capacity is {maximum}: lower or raise one")
    schedule = part("schedule", lambda said: parse(_text(said), value["timezone"]))
    return ScheduledAction(str(name), schedule, minimum, maximum)


READERS: dict[str, Callable[[Any], Any]] = {
    "autoscaling_max_capacity": _number(1, whole=True),
    "autoscaling_min_capacity": _number(1, whole=True),
    "autoscaling_scale_in_cooldown_seconds": _number(0),
    "autoscaling_scale_out_cooldown_seconds": _number(0),
    "autoscaling_scheduled_actions": _scheduled_actions,
    "autoscaling_target_invocations_per_minute": _target,
    "endpoint_instance_type": _text,
    "interface_endpoints": _flag,
    "lambda_provisioned_concurrency": _number(0, whole=True),
    "lambda_reserved_concurrency": _number(1, whole=True, nullable=True),
    "network": lambda value: value,
    "notebook_instance_type": _text,
    "region": _text,
    "trainer_instance_type": _text,
    "trainer_time_cap_seconds": _number(60),
    "training_instance_type": _text,
}


def read(paths: Sequence[Path]) -> Configuration:
    """The configuration of variable files in order. Raises UserError for what `terraform plan` would refuse."""
    settings = tfvars.read(paths)
    values = {}
    for name, body in tfvars.variables(TERRAFORM_DIR).items():
        if name not in READERS:
            continue
        if name not in settings and "default" not in body:
            raise UserError(f"{name} is set in none of {', '.join(map(str, paths))}: set it, or add the file that does")
        values[name] = _value(name, settings.get(name) or Setting(body.get("default"), "terraform/variables.tf"))
    function = tfvars.variables(TERRAFORM_DIR / "modules" / "lambda")
    notebook = tfvars.variables(TERRAFORM_DIR / "modules" / "notebook")
    configuration = Configuration(
        **values,
        lambda_memory_mb=function["memory_mb"]["default"],
        lambda_timeout_seconds=function["timeout_seconds"]["default"],
        notebook_volume_gb=notebook["volume_gb"]["default"],
        places={name: setting.place for name, setting in settings.items()},
    )
    _ordered(configuration, "autoscaling_min_capacity", "autoscaling_max_capacity")
    if configuration.lambda_reserved_concurrency is not None:
        _ordered(configuration, "lambda_provisioned_concurrency", "lambda_reserved_concurrency")
    if configuration.endpoint_instance_type.startswith("ml.t"):
        place = configuration.place("endpoint_instance_type")
        raise UserError(
            f"{place}: {configuration.endpoint_instance_type} is burstable, which cannot scale: use ml.m5.xlarge"
        )
    return configuration


def _value(name: str, setting: Setting) -> Any:
    try:
        return READERS[name](setting.value)
    except PartError as error:
        part, value, remedy = error.args
        raise UserError(f"{setting.place}: {name}{part} is {value!r}: {remedy}") from None
    except ValueError as error:
        raise UserError(f"{setting.place}: {name} is {setting.value!r}: {error}") from None


def _ordered(configuration: Configuration, lower: str, upper: str) -> None:
    low, high = getattr(configuration, lower), getattr(configuration, upper)
    if low > high:
        raise UserError(f"{configuration.place(lower)}: {lower} ({low}) is above {upper} ({high}): lower or raise one")
