"""Works run in turn, each in a process of its own; memory of a command and its children."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from bench import rounds
from bench.memory import peak_bytes
from bench.rounds import Stopwatch


def test_a_work_runs_in_another_process_with_the_threads_asked_for():
    assert rounds.alone(os.getpid) != os.getpid()
    assert rounds.alone(torch.get_num_threads, threads=1) == 1


def test_a_work_that_fails_is_no_result():
    with pytest.raises(RuntimeError, match="status 1"):
        rounds.alone(partial(int, "nonsense"))


def test_every_other_round_goes_backwards(monkeypatch):
    order = []
    monkeypatch.setattr(rounds, "alone", lambda work: work())
    found = rounds.in_turn(2, {name: partial(lambda name: order.append(name) or name, name) for name in "ab"})
    assert order == ["a", "b", "b", "a"]
    assert found == {"a": ["a", "a"], "b": ["b", "b"]}


def test_works_can_be_called_in_another_way():
    assert rounds.in_turn(2, {"a": partial(int, "7")}, call=lambda work: work() + 1) == {"a": [8, 8]}


def test_the_stopwatch_counts_the_processor_and_ended_children():
    watch = Stopwatch()
    time.sleep(0.2)
    slept = watch.read()
    assert slept.wall >= 0.2 > slept.cpu
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert watch.read().cpu >= slept.cpu + 0.3


def test_the_memory_of_children_counts():
    megabytes = 60
    hold = f"import subprocess, sys, time; held = b'x' * ({megabytes} << 20)"
    child = f"{hold}; time.sleep(0.5)"
    parent = f"{hold}; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    alone, both = (peak_bytes([sys.executable, "-c", script]) for script in (child, parent))
    assert alone > megabytes << 20
    assert both > 2 * megabytes << 20


def test_a_command_that_fails_has_no_peak():
    with pytest.raises(subprocess.CalledProcessError):
        peak_bytes([sys.executable, "-c", "raise SystemExit(3)"])
