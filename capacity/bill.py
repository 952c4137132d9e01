"""The monthly bill of the stack, by item."""

from __future__ import annotations

from dataclasses import dataclass

from capacity.configuration import Configuration
from capacity.prices import PriceList
from capacity.simulation import REFUSED, Outcome

MONTH_HOURS = 730.0

# What terraform/modules makes, whatever the traffic.
ZONES = 2
INTERFACE_ENDPOINTS = 9
ALARMS = 2 + 3 + 2 + 2  # the endpoint's, the function's, those of unusual activity, and target tracking's own
KMS_KEYS = 1


@dataclass(frozen=True)
class Usage:
    """What traffic uses in a month: hours of instances, invocations, and seconds that the function runs."""

    instance_hours: float
    invocations: float = 0.0
    provisioned_seconds: float = 0.0
    on_demand_seconds: float = 0.0


@dataclass(frozen=True)
class Line:
    item: str
    quantity: float
    unit: str
    usd: float


def usage(outcome: Outcome) -> Usage:
    """The usage of a month that goes on as the trace went."""
    month = MONTH_HOURS * 3600 / outcome.duration
    return Usage(
        instance_hours=outcome.instance_seconds / 3600 * month,
        invocations=float((outcome.status != REFUSED).sum() + outcome.run_again) * month,
        provisioned_seconds=outcome.provisioned_seconds * month,
        on_demand_seconds=outcome.on_demand_seconds * month,
    )


def bill(configuration: Configuration, prices: PriceList, used: Usage) -> list[Line]:
    """The lines of a month's bill.

    Not in it: data transfer and processing, storage and log lines (they hang on what the pictures weigh), training,
    which is billed while it runs, and the free tier. Raises UserError where the price file lacks an item.
    """
    gb = configuration.lambda_memory_mb / 1024
    kept = configuration.lambda_provisioned_concurrency * MONTH_HOURS * 3600 * gb
    own_network = configuration.network is None
    zones = ZONES if own_network else 0
    endpoints = INTERFACE_ENDPOINTS * zones if configuration.interface_endpoints else 0
    host, notebook = (
        f"hosting {configuration.endpoint_instance_type}",
        f"notebook {configuration.notebook_instance_type}",
    )
    quantities = {
        host: used.instance_hours,
        "lambda requests": used.invocations,
        "lambda on demand": used.on_demand_seconds * gb,
        "lambda provisioned, kept": kept,
        "lambda provisioned, running": used.provisioned_seconds * gb,
        notebook: MONTH_HOURS,
        "notebook volume": configuration.notebook_volume_gb,
        "nat gateway": zones * MONTH_HOURS,
        "public ipv4 address": zones * MONTH_HOURS,
        "interface endpoint": endpoints * MONTH_HOURS,
        "alarm": ALARMS,
        "kms key": KMS_KEYS,
    }
    wanted_by = {
        host: configuration.place("endpoint_instance_type"),
        notebook: configuration.place("notebook_instance_type"),
    }
    lines = []
    for item, quantity in quantities.items():
        price = prices.of(item, wanted_by.get(item, "the bill"))
        lines.append(Line(item, quantity, price.unit, quantity * price.usd))
    return lines


def total(lines: list[Line]) -> float:
    """US dollars a month."""
    return sum(line.usd for line in lines)
