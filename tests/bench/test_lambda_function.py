"""The function's bench: whole invocations through the runner and the stubs, and what its rows say of them."""

from collections import Counter

from bench import lambda_function
from bench.lambda_function import Load


def test_invocations_are_answered_and_measured(tmp_path):
    with lambda_function.started(tmp_path, 2) as setup:
        load = setup.invoke(12, callers=2)
        assert setup.resident_bytes() > 2**20
    assert load.statuses == {200: 12}
    assert len(load.fetch) == len(load.endpoint) == 12
    assert set(load.cpu) == {"function", "runner", "stubs"}


def load(seconds: float, **statuses: int) -> Load:
    counted = Counter({int(name[1:]): count for name, count in statuses.items()})
    return Load(seconds, counted, Counter(function=2.0, runner=0.5, stubs=0.5), [1.0, 3.0, 2.0], [4.0])


def test_a_thousand_a_second_hold_only_if_all_are_answered_well():
    quick, slow = load(1.0, s200=1000), load(1.01, s200=1000)
    broken = load(0.5, s200=999, s502=1)
    rows = [lambda_function.throughput_rows(each, quick, quick) for each in (quick, slow, broken)]
    assert [each[0].verdict for each in rows] == ["held", "fell short", "fell short"]
    assert rows[2][0].ours == "2000/s, 1 failed"
    assert [row.ours for row in rows[0][1:]] == ["2.00, 0.50, 0.50 ms", "3.0", "2.00, 4.00 ms", "1000/s"]
