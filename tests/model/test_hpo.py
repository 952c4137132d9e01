"""The search: real trials on features, resumed; what a study refuses; and what a kill leaves."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import hpo
import optuna
import pytest
from classifier import space, study
from classifier.fit import Diverged
from classifier.mistake import Mistake
from classifier.search_report import charts, write_search_report
from optuna.trial import TrialState


@pytest.fixture
def storage(tmp_path) -> Path:
    return tmp_path / "search" / "study.db"


@pytest.fixture
def task_flags(trained, textures, tmp_path) -> tuple:
    """A task whose trials take a fraction of a second."""
    weights = ("--weights", trained.folder / "model.safetensors", "--feature-cache", tmp_path / "features")
    return ("--train", textures, "--backbone", "resnet18", *weights, "--image-size", 32)


def trials_of(storage: Path, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
    with study.opened(storage, "search", 1) as opened:
        return opened.get_trials(states=states or None)


def test_a_search_runs_resumes_and_its_choice_trains(run_command, task_flags, tmp_path, storage):
    best, page = tmp_path / "best.json", tmp_path / "pages" / "search.html"
    results = ("--storage", storage, "--output", best, "--report", page)
    for trials, workers in ((2, 1), (3, 2)):
        flags = ("--epochs", 2, "--trials", trials, "--workers", workers, "--pruner", "none")
        done = run_command("hpo.py", *task_flags, *flags, *results)
        assert done.returncode == 0, done.stderr
        lines = re.findall(r"^trial=(\d+) state=complete validation_loss=\d+\.\d{6} ", done.stdout, re.MULTILINE)
        assert len(lines) == trials
    trials = trials_of(storage)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5
    assert trials[0].params["learning_rate"] == 1e-3, "train.py's own choice is tried first"
    assert len({trial.params["learning_rate"] for trial in trials}) == 5
    choice = json.loads(best.read_text())
    assert choice == min(trials, key=lambda trial: trial.value).params
    assert space.LEARNING_RATES[0] <= choice["learning_rate"] <= space.LEARNING_RATES[1]
    assert choice["batch_size"] in space.BATCH_SIZES and choice["hidden"] in space.HIDDEN_UNITS
    last = float(done.stdout.split("validation_loss=")[-1])
    assert last == pytest.approx(min(trial.value for trial in trials), abs=1e-6)

    html = page.read_text()
    assert "Plotly.newPlot" in html and not re.search(r'<(script|link|img)[^>]+(src|href)="http', html)
    command = re.search(r"<pre>python model/(.*)</pre>", html)[1].split()
    assert {"--storage", "--trials", "--workers"}.isdisjoint(command)
    folders = [("--model-dir", "model"), ("--output-data-dir", "output"), ("--checkpoint-dir", "checkpoints")]
    done = run_command(*command, *(word for flag, name in folders for word in (flag, tmp_path / name)))
    assert done.returncode == 0, done.stderr
    # The same split, seed and choice: what the search saw is what training gives.
    metrics = json.loads((tmp_path / "output" / "metrics.json").read_text())
    assert metrics["validation_loss"] == pytest.approx(last, 1e-4)


def loss(trial: optuna.Trial) -> float:
    """A bowl with its least at 1e-3 and 128, without any training."""
    choice = study.suggest(trial, whole_network=False)
    return abs(math.log10(choice["learning_rate"]) + 3) + abs(choice["hidden"] - 128) / 1000


def run(opened: optuna.Study, trials: int, objective=loss, seed: int = 0) -> None:
    left = iter(range(trials))
    study.run_trials(opened, objective, lambda: next(left, None) is not None, lambda *_: None, seed)


def choices(opened: optuna.Study) -> list[dict]:
    return [trial.params for trial in opened.get_trials(states=[TrialState.COMPLETE])]


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path):
    numbers = count()

    def interrupted_at_the_fourth(trial: optuna.Trial) -> float:
        result = loss(trial)
        if next(numbers) == 3:
            raise KeyboardInterrupt
        return result

    with study.opened(tmp_path / "whole.db", "search", 5) as whole:
        run(whole, 14)
    with study.opened(tmp_path / "parts.db", "search", 5) as parts, pytest.raises(KeyboardInterrupt):
        run(parts, 14, interrupted_at_the_fourth)
    with study.opened(tmp_path / "parts.db", "search", 5) as parts:
        run(parts, 11)
    with study.opened(tmp_path / "other.db", "search", 5) as other:
        run(other, 14, seed=1)
    assert choices(parts) == choices(whole) != choices(other)
    assert {trial.state for trial in parts.trials} == {TrialState.COMPLETE, TrialState.FAIL}


def test_a_trial_whose_process_was_killed_before_its_first_beat_is_tried_again(storage):
    with study.opened(storage, "search", 1) as opened:
        opened.ask({"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)})
        study.await_beats(opened, 1)
        study.await_beats(opened, 1)
        states = [trial.state for trial in opened.trials]
        assert states == [TrialState.FAIL, TrialState.WAITING]
        assert opened.trials[1].params == opened.trials[0].params


def test_a_trial_given_to_another_process_while_this_one_slept_is_left_to_it(storage):
    def overtaken(trial: optuna.Trial) -> float:
        with study.opened(storage, "search", 5) as elsewhere:
            study.give_back(elsewhere, os.getpid())
        return loss(trial)

    with study.opened(storage, "search", 5) as opened:
        run(opened, 1, overtaken)
        run(opened, 1)
        assert [trial.state for trial in opened.trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_the_best_choice_is_written_after_every_trial(storage, tmp_path):
    losses, best = iter([3.0, 1.0, 2.0]), tmp_path / "best.json"
    seen = []

    def after(opened: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        study.write_best(opened, best)
        seen.append((json.loads(best.read_text()), trial.params))

    def objective(trial: optuna.Trial) -> float:
        study.suggest(trial, whole_network=True)
        return next(losses)

    with study.opened(storage, "search", 5) as opened:
        study.write_best(opened, best)
        assert not best.exists()
        left = iter(range(3))
        study.run_trials(opened, objective, lambda: next(left, None) is not None, after, seed=0)
    (first, first_params), (second, second_params), (third, _) = seen
    assert first == first_params and second == third == second_params != first


def test_a_diverged_trial_is_pruned_and_said_to_have_diverged(storage, monkeypatch):
    class Hopeless:
        freeze = True

        def train(self, hidden, recipe, on_epoch):
            raise Diverged("the loss is no longer a number in epoch 1")

    monkeypatch.setattr(hpo, "recipe_from", lambda *_: None)
    with study.opened(storage, "search", 5) as opened:
        run(opened, 1, lambda trial: hpo.objective(trial, Hopeless(), None))
        (trial,) = opened.trials
        assert trial.state is TrialState.PRUNED
        assert " state=diverged " in study.line(opened, trial) and study.best_trial(opened) is None


def test_a_study_of_another_task_is_refused(storage):
    with study.opened(storage, "search", 5) as opened:
        study.check_conditions(opened, {"classes": ["a", "b"], "--epochs": 5})
        study.check_conditions(opened, {"classes": ["a", "b"], "--epochs": 5})
        with pytest.raises(Mistake, match=r"--study-name search was begun with --epochs 5, not 6; choose another name"):
            study.check_conditions(opened, {"classes": ["a", "b"], "--epochs": 6})
        with pytest.raises(Mistake, match=r'begun with classes \["a", "b"\], not \["a"\]'):
            study.check_conditions(opened, {"classes": ["a"], "--epochs": 5})


def write_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE invoices (number INTEGER)")


def write_torn(path: Path) -> None:
    with study.opened(path, "search", 5) as opened:
        run(opened, 3)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (write_foreign, "something else than Optuna"),
        (lambda path: path.write_bytes(b"not a database at all" * 400), "file is not a database"),
        (write_torn, "malformed"),
        (Path.mkdir, "unable to open database file"),
    ],
)
def test_a_file_that_is_no_study_is_refused_in_one_line(tmp_path, make, reason):
    path = tmp_path / "study.db"
    make(path)
    with pytest.raises(Mistake) as refused, study.opened(path, "search", 5) as opened:
        run(opened, 1)
    text = str(refused.value)
    assert text.startswith(f"--storage {path}: ") and reason in text and "choose another" in text and "\n" not in text


def test_a_locked_or_unreachable_file_is_refused_in_one_line(tmp_path, storage, monkeypatch):
    monkeypatch.setattr(study, "BUSY_SECONDS", 0.1)
    with study.opened(storage, "search", 5) as opened:
        run(opened, 1)
        with closing(sqlite3.connect(storage)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(Mistake, match="locked"), study.opened(storage, "search", 5) as opened:
                run(opened, 1)
    (tmp_path / "file").touch()
    with pytest.raises(Mistake, match="File exists"), study.opened(tmp_path / "file" / "study.db", "search", 5):
        pass


def test_several_processes_may_begin_one_study_at_once(storage):
    def begin(_) -> str:
        with study.opened(storage, "search", 5) as opened:
            return opened.study_name

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(begin, range(8))) == {"search"}


def test_the_page_says_a_word_where_a_plot_needs_more_trials(storage, tmp_path):
    def one_valued(trial: optuna.Trial) -> float:
        trial.report(0.5, 1)
        trial.set_user_attr("validation_accuracy", 0.5)
        return trial.suggest_float("learning_rate", 0.5, 0.5)

    with study.opened(storage, "a & <b>", 5) as opened:
        for _ in range(3):
            write_search_report(tmp_path / "page.html", opened, "train --train 'a <b>'")
            drawn = {title for title, chart in charts(opened).items() if "Plotly.newPlot" in chart}
            complete = len(opened.trials)
            assert ("What mattered" in drawn) is False and bool(drawn) is (complete == 2)
            run(opened, 1, one_valued)
    page = (tmp_path / "page.html").read_text()
    assert (
        "too few or too alike" in page and "a &lt;b&gt;" in page and "a &amp; &lt;b&gt;" in page and "<b>" not in page
    )


def start(task_flags: tuple, storage: Path, *flags: object) -> subprocess.Popen:
    """hpo.py in a process group of its own, with trials of some seconds."""
    command = [
        sys.executable,
        hpo.__file__,
        *task_flags,
        "--storage",
        storage,
        "--output",
        storage.with_suffix(".json"),
    ]
    command += ["--report", storage.with_suffix(".html"), "--epochs", 150, "--patience", 150, "--pruner", "none"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    # Tests that run in the background of a shell have SIGINT ignored, and what they start would inherit it.
    pipes["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([*map(str, command), "--heartbeat", "1", *map(str, flags)], **pipes, start_new_session=True)


def wait_for_trials_in_the_middle(storage: Path, process: subprocess.Popen, trials: int) -> list:
    """That many trials, each running and some epochs old."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        if storage.exists() and storage.stat().st_size:
            running = [trial for trial in trials_of(storage, TrialState.RUNNING) if len(trial.intermediate_values) > 5]
            if len(running) == trials:
                return running
        time.sleep(0.1)
    raise AssertionError("no trial in the middle")


def gone(process: int) -> bool:
    """Ended; a zombie that nobody has waited for yet has ended too."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_until_gone(processes: list[int]) -> None:
    end = time.monotonic() + 60
    while not all(map(gone, processes)):
        assert time.monotonic() < end, "a worker outlived its search"
        time.sleep(0.1)


def retried(storage: Path, trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
    """The trial that tried this one again."""
    (again,) = (other for other in trials_of(storage) if other.system_attrs.get("failed_trial") == trial.number)
    return again


@pytest.mark.slow
def test_a_killed_worker_is_reported_and_its_trial_run_again_by_the_other(task_flags, storage):
    process = start(task_flags, storage, "--workers", 2, "--trials", 4)
    try:
        victim, _ = wait_for_trials_in_the_middle(storage, process, 2)
        os.kill(victim.user_attrs["process"], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=300)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, stderr
    assert "ended with exit code -9" in stderr
    assert retried(storage, victim).params == victim.params
    states = [trial.state.name for trial in trials_of(storage)]
    assert sorted(states) == ["COMPLETE"] * 4 + ["FAIL"]
    assert len(re.findall("^trial=.* state=complete ", stdout, re.MULTILINE)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_kill_the_same_command_goes_on_and_runs_the_dead_trials_again(task_flags, storage, workers):
    flags = ("--workers", workers, "--trials", 3)
    process = start(task_flags, storage, *flags)
    try:
        dead = wait_for_trials_in_the_middle(storage, process, workers)
        # The one process, not its group: the workers have to notice by themselves.
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        wait_until_gone([trial.user_attrs["process"] for trial in dead])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert len(trials_of(storage, TrialState.RUNNING)) == workers
    # One worker may have ended a trial before the other was in the middle of its first.
    complete = len(trials_of(storage, TrialState.COMPLETE))

    process = start(task_flags, storage, *flags)
    try:
        _, stderr = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, stderr
    states = [trial.state.name for trial in trials_of(storage)]
    assert sorted(states) == ["COMPLETE"] * (complete + 3) + ["FAIL"] * workers
    for trial in dead:
        assert retried(storage, trial).params == trial.params
    best = min(trials_of(storage, TrialState.COMPLETE), key=lambda trial: trial.value)
    assert json.loads(storage.with_suffix(".json").read_text()) == best.params


@pytest.mark.slow
def test_ctrl_c_ends_every_worker_and_keeps_the_trials_for_the_next_run(task_flags, storage):
    process = start(task_flags, storage, "--workers", 2, "--trials", 20)
    try:
        cut_off = wait_for_trials_in_the_middle(storage, process, 2)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=300)
        wait_until_gone([trial.user_attrs["process"] for trial in cut_off])
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130 and "the same command goes on" in stderr and "Traceback" not in stderr
    assert not trials_of(storage, TrialState.RUNNING)
    waiting = [trial.params for trial in trials_of(storage, TrialState.WAITING)]
    assert all(trial.params in waiting for trial in cut_off)
    assert storage.with_suffix(".html").exists()
