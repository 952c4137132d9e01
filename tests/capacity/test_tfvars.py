"""Variable files are read as Terraform reads them, and a mistake in one is named by file and line."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capacity import configuration, tfvars
from capacity.errors import UserError

ENVIRONMENTS = Path(__file__).resolve().parents[2] / "terraform" / "environments"
REFERENCE = ENVIRONMENTS / "reference.tfvars"

numbers = st.integers(-(10**9), 10**9) | st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))
texts = st.text(st.characters(codec="ascii", exclude_characters='"\\$%\n\r', exclude_categories=["Cc"]), max_size=20)
values = st.recursive(
    numbers | texts | st.booleans() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=6,
)


def write(folder: Path, text: str, name: str = "some.tfvars") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def hcl(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {hcl(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(hcl, value)) + "]"
    return f"{value:f}" if isinstance(value, float) else json.dumps(value)


def test_the_reference_configuration():
    read = configuration.read([REFERENCE])
    assert read.autoscaling_target_invocations_per_minute == 30
    assert (read.autoscaling_min_capacity, read.autoscaling_max_capacity) == (1, 3)
    assert (read.lambda_reserved_concurrency, read.lambda_provisioned_concurrency) == (5, 3)
    assert read.region == "us-east-1"  # a default of terraform/variables.tf
    assert read.lambda_memory_mb == 512  # a default of the module


def test_scheduled_actions(tmp_path):
    path = write(
        tmp_path,
        """autoscaling_scheduled_actions = {
  night = {
    schedule     = "cron(0 20 ? * MON-FRI *)"
    timezone     = null
    min_capacity = 1
    max_capacity = "2"
  }
  "a year on" = { schedule = "at(2027-01-02T06:00:00)", timezone = "Europe/Berlin", min_capacity = 3, max_capacity = 4 }
}
""",
    )
    first, second = configuration.read([REFERENCE, path]).autoscaling_scheduled_actions
    assert (first.name, first.minimum, first.maximum) == ("a year on", 3, 4)
    assert (first.schedule.text, first.schedule.timezone) == ("at(2027-01-02T06:00:00)", "Europe/Berlin")
    assert (second.name, second.minimum, second.maximum) == ("night", 1, 2)
    assert second.schedule.timezone == "UTC"
    assert configuration.read([REFERENCE]).autoscaling_scheduled_actions == ()
    assert configuration.read([REFERENCE, path]) == configuration.read([REFERENCE, path])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"schedule": "cron(0 20 L * ? *)"},
            ".schedule is 'cron(0 20 L * ? *)': day-of-month L is not read: give 1 to 31",
        ),
        ({"schedule": "rate(1 day)"}, ".schedule is 'rate(1 day)': write at(2026-12-24T18:00:00) or cron("),
        ({"schedule": 20}, ".schedule is 20: give a text in quotes"),
        ({"timezone": "Berlin"}, ".timezone is 'Berlin': give an IANA time zone such as Europe/Berlin"),
        ({"timezone": 1}, ".timezone is 1: give a text in quotes"),
        ({"min_capacity": 0}, ".min_capacity is 0: give a whole number from 1"),
        ({"max_capacity": 1.5}, ".max_capacity is 1.5: give a whole number from 1"),
        ({"min_capacity": 3}, ".min_capacity is 3: its max_capacity is 2: lower or raise one"),
        ({"max_capacty": 3}, "give schedule, min_capacity, max_capacity and, where not UTC, timezone"),
    ],
)
def test_a_mistake_in_a_scheduled_action_is_named(tmp_path, changed, message):
    action = {"schedule": "cron(0 20 * * ? *)", "min_capacity": 1, "max_capacity": 2} | changed
    path = write(tmp_path, f"autoscaling_scheduled_actions = {hcl({'night': action})}\n")
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        configuration.read([REFERENCE, path])
    assert str(raised.value).startswith(f'{path}:1: autoscaling_scheduled_actions["night"]')
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", ["3", "[]", '{ night = "cron(0 20 * * ? *)" }', "{ night = { min_capacity = 1 } }"])
def test_scheduled_actions_are_a_map_of_objects(tmp_path, value):
    path = write(tmp_path, f"autoscaling_scheduled_actions = {value}\n")
    with pytest.raises(UserError, match="give "):
        configuration.read([REFERENCE, path])


def test_a_later_file_wins():
    assert configuration.read([REFERENCE, ENVIRONMENTS / "prod.tfvars"]).autoscaling_min_capacity == 2
    assert configuration.read([ENVIRONMENTS / "prod.tfvars", REFERENCE]).autoscaling_min_capacity == 1


def test_null_reserves_nothing(tmp_path):
    path = write(tmp_path, "lambda_reserved_concurrency = null\n")
    assert configuration.read([REFERENCE, path]).lambda_reserved_concurrency is None


def test_a_number_in_quotes_is_a_number(tmp_path):
    path = write(tmp_path, 'autoscaling_max_capacity = "7"\n')
    assert configuration.read([REFERENCE, path]).autoscaling_max_capacity == 7


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("# a comment\n\nreserved_concurrency = 5\n", 3, "reserved_concurrency is no variable"),
        ("autoscaling_max_capacity = 3\nautoscaling_max_capacity = 4\n", 2, "set on line 1 already"),
        ("region =\n", 1, "not a NAME = VALUE"),
        ('\nregion = "eu\n', 2, "not a NAME = VALUE"),
        ('vpc {\n  cidr = "10.0.0.0/8"\n}\n', 1, "is a block"),
        ('name = "a"\nregion = var.name\n', 2, "is an expression"),
        ('region = "${var.name}"\n', 1, "is an expression"),
        ('alarm_emails = ["a@b.c", lower("D@E.F")]\n', 1, "is an expression"),
        ('region = "us-east-1" name = "a"\n', 1, "a line of its own"),
        ("autoscaling_max_capacity = 2.5\n", 1, "autoscaling_max_capacity is 2.5: give a whole number"),
        ("autoscaling_max_capacity = true\n", 1, "give a whole number"),
        ("autoscaling_min_capacity = null\n", 1, "give a whole number"),
        ("autoscaling_target_invocations_per_minute = 0\n", 1, "above 0"),
        ('interface_endpoints = "yes"\n', 1, "true or false"),
        ("autoscaling_min_capacity = 4\n", 1, "above autoscaling_max_capacity (3)"),
        ("lambda_provisioned_concurrency = 6\n", 1, "above lambda_reserved_concurrency (5)"),
        ('endpoint_instance_type = "ml.t2.medium"\n', 1, "burstable"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(tmp_path, text, line, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        configuration.read([REFERENCE, path])
    assert str(raised.value).startswith(f"{path}:{line}: ")


def test_a_figure_that_no_file_sets(tmp_path):
    path = write(tmp_path, "autoscaling_max_capacity = 3\n")
    with pytest.raises(UserError, match=r"is set in none of .*some\.tfvars"):
        configuration.read([path])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none\.tfvars: cannot be read"):
        configuration.read([tmp_path / "none.tfvars"])


@settings(max_examples=60, deadline=None)
@given(value=values)
def test_any_value_reads_as_it_was_written(tmp_path_factory, value):
    path = write(tmp_path_factory.getbasetemp(), f"# above\ntrainer_hyperparameters = {hcl(value)}\n", "any.tfvars")
    setting = tfvars.read([path])["trainer_hyperparameters"]
    assert setting.value == value
    assert setting.place == f"{path}:2"


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from('ab= \n"{}[]()${}%<-\\#/*1.,:?'), max_size=30) | st.text(max_size=20))
def test_whatever_a_file_holds_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "whatever.tfvars"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        tfvars.read([path])
    except UserError as error:
        assert str(path) in str(error)
