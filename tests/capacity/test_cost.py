"""The bill against sums done by hand, the write-up's claims, and what terraform/modules makes."""

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from capacity import bill as billing
from capacity import configuration, prices, report
from capacity.bill import Usage, bill, total, usage
from capacity.errors import UserError
from capacity.simulation import ANSWERED, REFUSED, Outcome

TERRAFORM = Path(__file__).resolve().parents[2] / "terraform"
REFERENCE = configuration.read([TERRAFORM / "environments" / "reference.tfvars"])
PRICES = prices.read()


def dollars(configured=REFERENCE, used=Usage(730)) -> dict[str, float]:  # noqa: B008 - frozen
    return {line.item: round(line.usd, 2) for line in bill(configured, PRICES, used)}


def test_the_reference_configuration_by_item():
    assert dollars() == {
        "hosting ml.m5.xlarge": 167.90,
        "lambda requests": 0,
        "lambda on demand": 0,
        "lambda provisioned, kept": 16.43,  # 3 environments of half a GB
        "lambda provisioned, running": 0,
        "notebook ml.t3.medium": 36.50,
        "notebook volume": 2.80,
        "nat gateway": 65.70,
        "public ipv4 address": 7.30,
        "interface endpoint": 131.40,
        "alarm": 0.90,
        "kms key": 1.00,
    }
    assert dollars(used=Usage(3 * 730))["hosting ml.m5.xlarge"] == 503.70


def test_traffic_is_billed_by_request_and_gb_second():
    used = Usage(0, invocations=1e6, provisioned_seconds=2e5, on_demand_seconds=2e5)
    by_item = dollars(used=used)
    assert by_item["lambda requests"] == 0.20
    assert by_item["lambda on demand"] == 1.67
    assert by_item["lambda provisioned, running"] == 0.97


def test_a_network_of_ones_own_and_no_interface_endpoints():
    own = dollars(replace(REFERENCE, network={"vpc_id": "vpc-1"}))
    assert own["nat gateway"] == own["public ipv4 address"] == own["interface endpoint"] == 0
    assert dollars(replace(REFERENCE, interface_endpoints=False))["interface endpoint"] == 0


def test_an_hour_of_a_trace_becomes_a_month():
    outcome = Outcome(
        duration=3600.0,
        status=np.array([ANSWERED, REFUSED, ANSWERED], dtype=np.uint8),
        latency=np.array([0.2, 0.0, 0.3]),
        cold_starts=0,
        spilled=0,
        decisions=[],
        capacity=[(0.0, 2)],
        billed=[(0.0, 2)],
        instance_seconds=7200.0,
        provisioned_seconds=0.4,
        on_demand_seconds=0.1,
    )
    # What was throttled is not billed.
    assert usage(outcome) == pytest.approx(Usage(2 * 730, 2 * 730, 0.4 * 730, 0.1 * 730))


def test_what_terraform_makes_is_what_is_billed():
    network = (TERRAFORM / "modules" / "network" / "endpoints.tf").read_text()
    services = re.search(r"interface_services = toset\(var\.interface_endpoints \? \[(.*?)\]", network, re.S)[1]
    assert len(re.findall(r'"[a-z.]+"', services)) == billing.INTERFACE_ENDPOINTS
    monitoring = (TERRAFORM / "modules" / "monitoring" / "main.tf").read_text()
    alarms = monitoring[: monitoring.index("account_wide_log_groups")]
    assert len(re.findall(r"^\s*description\s*=", alarms, re.M)) + 2 == billing.ALARMS  # and target tracking's two
    keys = [path for path in TERRAFORM.rglob("*.tf") if 'resource "aws_kms_key"' in path.read_text()]
    assert len(keys) == billing.KMS_KEYS
    assert (
        f"slice(data.aws_availability_zones.available.names, 0, {billing.ZONES})"
        in (TERRAFORM / "modules" / "network" / "main.tf").read_text()
    )


def test_the_claims_of_the_write_up():
    notebook, box = report.claims(REFERENCE, PRICES)
    assert "claimed 0.05 USD/h, price 0.05" in notebook
    assert "claimed 0.461 USD/h, price 0.384: the claim is 20% too high" in box
    assert PRICES.prices["hosting ml.m5.2xlarge"].usd == report.CLAIMED_TRAINER


def test_an_instance_type_without_a_price(tmp_path):
    path = tmp_path / "other.tfvars"
    path.write_text('\nendpoint_instance_type = "ml.p5.48xlarge"\n')
    configured = configuration.read([TERRAFORM / "environments" / "reference.tfvars", path])
    with pytest.raises(UserError, match=re.escape(f"{path}:2: prices.json has no price of hosting ml.p5.48xlarge")):
        bill(configured, PRICES, Usage(730))


def test_stale_prices_say_so():
    fresh = replace(PRICES, prices={name: replace(one, read=date(2026, 9, 1)) for name, one in PRICES.prices.items()})
    assert report.staleness(fresh, "us-east-1", date(2027, 3, 3)) == []
    fresh.prices["kms key"] = replace(fresh.prices["kms key"], read=date(2026, 8, 1))
    [line] = report.staleness(fresh, "us-east-1", date(2027, 3, 3))
    assert line.startswith("stale") and line.endswith("kms key (2026-08)")


def test_another_region_says_so():
    assert report.staleness(replace(PRICES, prices={}), "eu-west-1", date(2026, 9, 1)) == [
        "prices are those of us-east-1, the stack is in eu-west-1"
    ]


def test_a_bill_adds_up():
    lines = bill(REFERENCE, PRICES, Usage(730))
    assert total(lines) == pytest.approx(429.93, abs=0.01)
