"""The control loop against what AWS documents and what users observed."""

import pytest

from capacity.schedule import ScheduledAction, parse
from capacity.target_tracking import Policy, TargetTracking, low_threshold, target_of

MINUTE = 60.0


def policy(**changes) -> Policy:
    figures = {"target": 30, "minimum": 1, "maximum": 10, "scale_in_cooldown": 300, "scale_out_cooldown": 300}
    return Policy(**figures | changes)


def feed(scaling: TargetTracking, datapoints: list[float], begin: float = 0.0) -> list:
    """A decision, or None, for each minute's datapoint."""
    return [scaling.evaluate(begin + minute * MINUTE, value) for minute, value in enumerate(datapoints)]


def action(minimum: int, maximum: int) -> ScheduledAction:
    return ScheduledAction("morning", parse("cron(0 8 * * ? *)"), minimum, maximum)


def settled(capacity: int, **changes) -> TargetTracking:
    """A loop that has been at a capacity for long."""
    scaling = TargetTracking(policy(**changes))
    scaling.capacity = capacity
    return scaling


def test_the_low_alarm_lies_at_nine_tenths():
    assert low_threshold(70) == pytest.approx(63)  # Lambda's documentation, at 70 % utilization
    assert low_threshold(1500) == pytest.approx(1350)  # seen on a SageMaker endpoint


def test_the_target_of_an_instance_that_holds_twenty_a_second():
    assert target_of(20) == 600  # SageMaker's documentation


def test_three_minutes_above_the_target_scale_out():
    assert feed(settled(1), [31, 31]) == [None, None]
    assert feed(settled(1), [31, 31, 31])[-1].after == 2
    # Seen on a SageMaker endpoint: above 1500, three of three.
    assert not any(feed(settled(1, target=1500), [1501, 1501, 1500, 1501, 1501]))
    assert feed(settled(1, target=1500), [1500, 1501, 1501, 1501])[-1].after == 2


@pytest.mark.parametrize("datapoints", [[31, 31, 30], [30, 31, 31], [31, 30, 31], [30, 30, 30]])
def test_the_target_itself_is_not_above_it(datapoints):
    assert not any(feed(settled(1), datapoints))


def test_a_sum_of_thirds_is_not_below_nine_tenths():
    rounded = 0.0
    for _ in range(81):
        rounded += 1 / 3
    assert rounded < 27
    assert not any(feed(settled(3, scale_in="one at a time"), [rounded] * 20))


def test_fifteen_minutes_below_scale_in():
    one_at_a_time = {"target": 1500, "scale_in": "one at a time"}
    assert not any(feed(settled(3, **one_at_a_time), [1349] * 14))
    assert not any(feed(settled(3, **one_at_a_time), [1350, *[1349] * 14]))
    assert feed(settled(3, **one_at_a_time), [1350, *[1349] * 15])[-1].after == 2


def test_a_low_alarm_whose_proportion_is_no_less_changes_nothing():
    assert not any(feed(settled(3), [24] * 60))  # two instances would have 36 each


def test_out_is_the_proportion_rounded_up():
    # 100 % of utilization at a target of 30 %.
    assert feed(settled(1), [100] * 3)[-1].after == 4


def test_out_goes_to_the_maximum_in_one_step():
    # Seen: a target of 5, a maximum of 4, about 130 a minute.
    assert feed(settled(1, target=5, maximum=4), [130] * 3)[-1].after == 4


def test_in_goes_by_the_proportion_or_by_one():
    assert feed(settled(9), [5] * 15)[-1].after == 2
    assert feed(settled(9, scale_in="one at a time"), [5] * 15)[-1].after == 8
    assert feed(settled(9, minimum=4), [5] * 15)[-1].after == 4


def test_no_traffic_goes_to_the_minimum():
    assert feed(settled(3), [0.0] * 15)[-1].after == 1


def test_an_endpoint_that_is_updating_refuses_another_change():
    scaling = settled(1)
    assert feed(scaling, [60] * 3)[-1].after == 2
    assert not any(feed(scaling, [90] * 5, 180))
    scaling.finished(480)
    assert scaling.evaluate(480 + 300, 90).after == 6


def test_in_the_cooldown_the_capacity_added_counts():
    # Step scaling's documented case: two are added, then three are called for: only one more comes.
    scaling = settled(10, maximum=100)
    assert feed(scaling, [36] * 3)[-1].after == 12
    scaling.finished(200)
    decision = scaling.evaluate(240, 39)
    assert (decision.before, decision.after) == (12, 13)


def test_in_the_cooldown_the_same_step_is_not_taken_twice():
    scaling = settled(10, maximum=100, scale_out_cooldown=120)
    assert feed(scaling, [36] * 3)[-1].after == 12
    scaling.finished(200)
    assert scaling.evaluate(300, 36) is None
    assert scaling.evaluate(360, 36).after == 15


def test_the_cooldown_of_a_scale_in_begins_when_it_is_done():
    scaling = settled(9, scale_in="one at a time", scale_in_cooldown=120)
    assert feed(scaling, [5] * 15)[-1].after == 8
    scaling.finished(1000)
    assert scaling.evaluate(1100, 5) is None
    assert scaling.evaluate(1120, 5).after == 7


def test_a_scale_out_ends_the_cooldown_of_a_scale_in():
    scaling = settled(9, scale_in_cooldown=100_000)
    assert feed(scaling, [5] * 15)[-1].after == 2
    scaling.finished(1000)
    assert not any(feed(scaling, [5] * 20, 1060))
    assert feed(scaling, [60] * 3, 2260)[-1].after == 4
    scaling.finished(2500)
    assert feed(scaling, [5] * 15, 2500)[-1].after == 1


def test_a_decision_names_its_datapoints():
    assert feed(settled(1), [1, 40, 50, 60])[-1].datapoints == (40, 50, 60)
    assert feed(settled(3), [50, *range(15)])[-1].datapoints == tuple(range(15))


@pytest.mark.parametrize(
    ("minimum", "maximum", "after"), [(5, 10, 5), (1, 2, 2), (2, 8, None), (4, 4, None), (1, 4, None)]
)
def test_a_scheduled_action_scales_to_its_bounds_and_not_within_them(minimum, maximum, after):
    decision = settled(4).run(0, action(minimum, maximum))
    assert (decision and decision.after) == after
    if decision:
        assert (decision.before, decision.alarm, decision.datapoints, decision.scheduled) == (4, None, (), "morning")


def test_target_tracking_goes_on_within_the_new_bounds():
    scaling = settled(4, target=30)
    scaling.run(0, action(2, 5))
    assert feed(scaling, [300] * 3)[-1].after == 5
    scaling.finished(300)
    assert feed(scaling, [0.0] * 15, 300)[-1].after == 2


def test_a_scheduled_action_waits_for_an_endpoint_that_is_updating_and_its_bounds_do_not():
    scaling = settled(4)
    assert feed(scaling, [60] * 3)[-1].after == 8
    assert scaling.run(150, action(1, 6)) is None
    decision = scaling.finished(393)
    assert (decision.time, decision.before, decision.after, decision.scheduled) == (393, 8, 6, "morning")
    assert scaling.finished(606) is None


def test_of_two_that_wait_the_later_one_counts():
    scaling = settled(4)
    assert feed(scaling, [60] * 3)[-1].after == 8
    assert scaling.run(150, action(1, 6)) is None
    assert scaling.run(160, action(8, 9)) is None
    assert scaling.finished(393) is None


def test_no_cooldown_holds_a_scheduled_action_back():
    scaling = settled(9, scale_in_cooldown=100_000, scale_out_cooldown=100_000)
    assert feed(scaling, [60] * 3)[-1].after == 10
    scaling.finished(200)
    assert scaling.run(201, action(1, 8)).after == 8
    scaling.finished(400)
    assert feed(scaling, [20] * 15, 400)[-1].after == 6
    scaling.finished(1300)
    assert scaling.run(1301, action(1, 2)).after == 2


def test_a_scheduled_action_begins_no_cooldown():
    scaling = settled(2, scale_in_cooldown=100_000, scale_out_cooldown=100_000)
    assert scaling.run(0, action(4, 10)).after == 4
    scaling.finished(213)
    assert feed(scaling, [60] * 3, 240)[-1].after == 8
    other = settled(9, scale_in_cooldown=100_000)
    assert other.run(0, action(1, 6)).after == 6
    other.finished(213)
    assert feed(other, [20] * 15, 240)[-1].after == 4


def test_a_step_in_by_schedule_is_no_reason_for_a_larger_step_out():
    scaling = settled(10, maximum=100)
    assert feed(scaling, [36] * 3)[-1].after == 12
    scaling.finished(200)  # in the cooldown, a step is counted from the ten before this one
    assert scaling.run(201, action(1, 3)).after == 3
    scaling.finished(414)
    scaling.run(415, action(1, 100))
    assert scaling.evaluate(420, 60).after == 6
