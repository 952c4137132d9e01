"""Asynchronous events: what Lambda tries again and when, and that none is lost."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capacity.__main__ import REFERENCE, main
from capacity.bill import usage
from capacity.endpoint import Variant
from capacity.event_queue import EventQueue, Events
from capacity.execution_environments import Function
from capacity.shapes import poisson
from capacity.simulation import ANSWERED, FAILED, REFUSED, System, simulate
from capacity.system import EVENTS, MAXIMUM_EVENT_AGE_SECONDS
from capacity.target_tracking import Policy
from capacity.trace import Trace

HOUR = 3600.0
ONE = System(
    Function(concurrency=1, provisioned=1, overhead=0.0, cold_start=0.0, timeout=30.0, events=Events()),
    Variant(workers=1, queue_length=64, update_seconds=213.0),
    Policy(target=1e9, minimum=1, maximum=1, scale_in_cooldown=30, scale_out_cooldown=30),
)


def run(system: System, arrivals: list[float], services: list[float], duration: float = HOUR):
    return simulate(Trace("test", np.array(arrivals), duration), np.array(services), system)


def waits(tried: list[float | None]) -> list[float]:
    return [after - before for before, after in zip([0.0, *tried], tried, strict=False) if after is not None]


def test_throttles_wait_twice_as_long_each_time_up_to_five_minutes_for_six_hours():
    queue, tried = EventQueue(Events()), [0.0]
    while tried[-1] is not None:
        tried.append(queue.after_throttle(7, tried[-1], arrived=0.0))
    waited = waits(tried[1:])
    assert waited[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert set(waited[10:]) == {300.0}
    assert 6 * HOUR - 300 < tried[-2] <= 6 * HOUR


def test_errors_are_run_again_twice_after_one_and_two_minutes():
    queue, tried = EventQueue(Events()), [0.0]
    while tried[-1] is not None:
        tried.append(queue.after_error(7, tried[-1], arrived=0.0))
    assert waits(tried[1:]) == [60, 120]


def test_a_throttled_event_is_answered_later():
    outcome = run(ONE, [10.0, 10.5], [2.0, 2.0])
    assert outcome.status.tolist() == [ANSWERED, ANSWERED]
    # Tried at 10.5 and 11.5, in vain, and at 13.5.
    assert outcome.latency.tolist() == pytest.approx([2.0, 5.0])
    assert (outcome.retried, outcome.run_again) == (2, 0)


def test_a_throttled_event_is_given_up_when_it_is_too_old():
    busy = replace(ONE, function=replace(ONE.function, timeout=1e6, events=Events(maximum_age=600)))
    outcome = run(busy, [10.0, 11.0], [1000.0, 1.0])
    assert outcome.status.tolist() == [ANSWERED, REFUSED]
    # After 1, 2, 4, ... 256 s, the last 511 s after the first.
    assert outcome.retried == 9
    assert usage(outcome).invocations == pytest.approx(730)


def test_a_run_that_ends_in_an_error_is_repeated_and_billed():
    slow = replace(ONE, function=replace(ONE.function, timeout=5.0))
    outcome = run(slow, [10.0], [100.0])
    assert outcome.status.tolist() == [FAILED] and outcome.run_again == 2
    assert outcome.provisioned_seconds == pytest.approx(3 * 5.0)
    assert usage(outcome).invocations == pytest.approx(3 * 730)


def test_a_run_that_the_endpoint_refused_succeeds_a_minute_later():
    function = replace(ONE.function, concurrency=2, provisioned=2)
    no_queue = replace(ONE, function=function, variant=replace(ONE.variant, queue_length=0))
    outcome = run(no_queue, [10.0, 11.0], [20.0, 1.0])
    assert outcome.status.tolist() == [ANSWERED, ANSWERED] and outcome.run_again == 1
    assert outcome.latency.tolist() == pytest.approx([20.0, 61.0])


def test_a_function_that_answers_its_errors_is_not_run_again():
    answering = replace(ONE, function=replace(ONE.function, timeout=5.0, events=EVENTS["async"]))
    outcome = run(answering, [10.0], [100.0])
    assert outcome.status.tolist() == [FAILED] and outcome.run_again == 0


@settings(max_examples=60, deadline=None)
@given(
    concurrency=st.integers(1, 4),
    queue_length=st.integers(0, 2),
    timeout=st.floats(0.2, 5),
    age=st.floats(1, 2000),
    raising=st.booleans(),
    rate=st.floats(0.1, 6),
    service=st.floats(0.05, 3),
)
def test_conservation(concurrency, queue_length, timeout, age, raising, rate, service):
    """Each event is answered or given up, once, within its age and the runs that are left."""
    function = Function(concurrency, 0, 0.1, 0.5, timeout, events=Events(age, (60.0, 120.0) if raising else ()))
    system = replace(ONE, function=function, variant=Variant(1, queue_length, 213.0))
    trace = poisson(1, rate, 300.0)
    services = np.random.default_rng(1).exponential(service, len(trace.arrivals)) + 1e-6
    outcome = simulate(trace, services, system)
    answered = outcome.status == ANSWERED
    assert answered.sum() + (outcome.status == REFUSED).sum() + (outcome.status == FAILED).sum() == len(answered)
    assert (outcome.latency[answered] >= 0.1 + services[answered] - 1e-9).all()
    assert (outcome.latency[answered] <= age + timeout + 1e-9).all()
    assert (outcome.latency[~answered] == 0).all()
    assert outcome.run_again <= (2 * len(answered) if raising else 0)


def test_throttles_of_a_burst_are_no_losses_when_asynchronous(capsys, tmp_path):
    burst = tmp_path / "burst.csv"
    burst.write_text("time\n" + "".join(f"{10 + number / 100}\n" for number in range(100)))
    printed = {}
    for kind in EVENTS:
        arguments = ["simulate", "--trace", str(burst), "--config", str(REFERENCE), "--invocation-type", kind]
        assert main(arguments) == 0
        printed[kind] = capsys.readouterr().out
    assert "tried again" not in printed["sync"]
    assert not re.search(r"^throttled \(429\) +0 ", printed["sync"], re.M)
    for kind in ("async", "async-raising"):
        assert re.search(r"^throttled \(429\) +0 ", printed[kind], re.M)
        assert re.search(r"^tried again after a throttle +[1-9]\d* times", printed[kind], re.M)


def test_events_are_as_old_as_terraform_lets_them_be():
    module = Path(__file__).resolve().parents[2] / "terraform" / "modules" / "lambda" / "main.tf"
    assert f"maximum_event_age_in_seconds = {MAXIMUM_EVENT_AGE_SECONDS:.0f}\n" in module.read_text()
    assert f"maximum_retry_attempts       = {len(Events().error_waits)}\n" in module.read_text()
