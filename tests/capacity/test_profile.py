"""A profile of service times is read as written, and only for the instance type it was measured on."""

import json
import re

import numpy as np
import pytest

from capacity import profile
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
