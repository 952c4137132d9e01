"""A profile of service times is read as written, and only for the instance type it was measured on."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capacity import profile, report
from capacity.errors import UserError

GOOD = {"instance_type": "ml.m5.xlarge", "workers": 4, "service_seconds": [0.1, 0.2, 0.4]}


@pytest.fixture
def written(tmp_path):
    def write(content, text: str | None = None):
        path = tmp_path / "some.json"
        path.write_text(text if text is not None else json.dumps(content, indent=2))
        return path

    return write


def test_draws_have_the_written_quantiles(written):
    read = profile.read(written(GOOD), "ml.m5.xlarge")
    drawn = read.draw(np.random.default_rng(0), 100_000)
    assert np.quantile(drawn, [0, 0.5, 1]) == pytest.approx([0.1, 0.2, 0.4], rel=0.01)
    assert drawn.mean() == pytest.approx((0.15 + 0.3) / 2, rel=0.01)
    assert read.workers == 4


def test_what_was_measured_of_an_instance(written):
    measured = {"max_rps": 12.5, "slo_p99_ms": 500, "date": "2026-10-02", "machine": "two processors", "workers": 2.0}
    read = profile.read(written(GOOD | measured), "ml.m5.xlarge")
    assert (read.max_rps, read.slo_p99_ms, read.date, read.machine) == (12.5, 500, "2026-10-02", "two processors")
    assert type(read.workers) is int
    assert profile.read(written(GOOD), "ml.m5.xlarge").max_rps is None


def test_a_slowdown_makes_every_request_longer(written):
    slow = profile.read(written(GOOD | {"slowdown": 1.5}), "ml.m5.xlarge")
    assert slow.service_seconds == pytest.approx([0.15, 0.3, 0.6])
    assert "1.5 times as long as alone" in report.service(slow)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=2), part, max_size=2),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(changes=st.dictionaries(st.sampled_from([*profile.NUMBERS, *profile.WORDS, *GOOD]), JSON, max_size=4))
def test_whatever_a_profile_holds_is_read_or_refused(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "whatever.json"
    path.write_text(json.dumps(GOOD | changes))
    try:
        read = profile.read(path, "ml.m5.xlarge")
    except UserError as error:
        assert str(error).startswith(f"{path}:")
    else:
        drawn = read.draw(np.random.default_rng(0), 10)
        assert (drawn > 0).all() and np.isfinite(drawn).all()


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        ({"instance_type": "ml.c7i.xlarge"}, 2, "measured on ml.c7i.xlarge, the endpoint runs on ml.m5.xlarge"),
        ({"workers": 0}, 3, "workers is 0: give a whole number from 1"),
        ({"workers": 1.5}, 3, "give a whole number"),
        ({"service_seconds": [0.2, 0.1]}, 4, "must ascend"),
        ({"service_seconds": [0, 0.1]}, 4, "from above 0"),
        ({"service_seconds": [float("nan"), 0.1]}, 4, "two or more positive numbers"),
        ({"service_seconds": [0.1]}, 4, "two or more"),
        ({"threads": 2}, 9, "threads is no part of a profile"),
        ({"lambda_seconds": -1}, 9, "lambda_seconds is -1"),
        ({"slowdown": 0.5}, 9, "slowdown is 0.5: give a number from 1"),
        ({"max_rps": "many"}, 9, "max_rps is 'many': give a number from 0"),
        ({"date": 2026}, 9, "date is 2026: give a text"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(written, change, line, message):
    path = written(GOOD | change)
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        profile.read(path, "ml.m5.xlarge")
    assert str(raised.value).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize(("text", "line"), [("", 1), ("[]", 1), ('{\n"workers": 2,\n}', 3)])
def test_a_file_that_is_no_profile(written, text, line):
    path = written(None, text)
    with pytest.raises(UserError) as raised:
        profile.read(path, "ml.m5.xlarge")
    assert str(raised.value).startswith(f"{path}:{line}: ")
