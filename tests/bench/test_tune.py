"""What tune chooses, and the file it writes; servers stood in for, but for one."""

from __future__ import annotations

import pytest

from bench import tune
from bench.serving.load import Load
from bench.tune import Choice, TuneError, chosen, divisions, fastest_within, tfvars


def load(clients: int, per_second: float, p99: float, lost: int = 0, statuses: dict | None = None) -> Load:
    return Load(clients, per_second, p99 / 2, p99, statuses or {"200": 100}, lost, 0.1)


def test_every_division_uses_every_core_once():
    assert divisions(1) == [(1, 1)]
    assert divisions(6) == [(6, 1), (3, 2), (2, 3), (1, 6)]


def test_clients_double_while_that_is_faster_and_within_the_limit():
    asked = []

    def measure(clients: int) -> Load:
        asked.append(clients)
        return load(clients, per_second=10 * clients, p99=20 * clients)

    assert fastest_within(200, 2, measure).clients == 8
    assert asked == [2, 4, 8, 16]


def test_it_ends_where_more_clients_only_wait():
    assert fastest_within(1000, 1, lambda clients: load(clients, min(20, 10 * clients), 10 * clients)).clients == 2


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(load(2, 99, p99=201), id="slow"),
        pytest.param(load(2, 99, p99=float("nan")), id="nothing"),
        pytest.param(load(2, 99, 10, lost=1), id="lost"),
        pytest.param(load(2, 99, 10, statuses={"200": 9, "503": 1}), id="refused"),
    ],
)
def test_no_limit_is_kept_by(bad):
    assert fastest_within(200, 2, lambda clients: bad) is None


def test_the_fastest_within_the_limit_is_chosen_and_marked():
    choices = [Choice(1, 2, load(2, 30, 90)), Choice(2, 1, load(4, 50, 150)), Choice(4, 1, None)]
    assert chosen(choices, 200) is choices[1]
    marked = [line for line in tune.table(choices, 200).splitlines() if line.endswith("fastest")]
    assert len(marked) == 1 and marked[0].split()[:3] == ["2", "1", "4"]


def test_a_limit_that_nothing_keeps_is_a_mistake():
    with pytest.raises(TuneError, match="--limit-milliseconds 5:"):
        chosen([Choice(1, 1, None)], 5)


def test_the_queue_is_as_long_as_can_be_worked_off_in_time():
    assert Choice(2, 1, load(4, 50, 150)).queue_length(200) == 8  # 10 answers in 0.2 s, two of them in work
    assert Choice(4, 1, load(4, 5, 150)).queue_length(200) == 1


def test_the_file_is_the_endpoints_environment():
    text = tfvars(Choice(2, 1, load(4, 50, 150)).environment(200))
    assert text.splitlines() == [
        "container_environment = {",
        '  OMP_NUM_THREADS                = "1"',
        '  SAGEMAKER_MODEL_SERVER_WORKERS = "2"',
        '  SERVING_QUEUE_LENGTH           = "8"',
        "}",
    ]


def test_a_missing_archive_is_one_line_and_status_2(tmp_path, capsys):
    assert tune.main([str(tmp_path / "no.tar.gz"), "--output", str(tmp_path / "out.tfvars")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "no.tar.gz" in error and error.count("\n") == 1
    assert not (tmp_path / "out.tfvars").exists()
