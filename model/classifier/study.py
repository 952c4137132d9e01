"""The study of a search: Optuna's trials in an SQLite file that several processes share, any of which may be killed.

A running trial beats: its process writes the time every few seconds. One that no longer beats was killed; it fails, and
a copy of it waits to be run. What is drawn depends on the seed and on the trials that came to an end, so that with one
process an interrupted search goes on as if it had not been.
"""

import fcntl
import json
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import DBAPIError

from classifier import space
from classifier.archive import write_atomically
from classifier.mistake import Mistake

PRUNERS = ("median", "hyperband", "none")
# How long one process waits for another's write to the file.
BUSY_SECONDS = 30
# Beats without which a trial counts as dead, and how often it is tried again: it may itself be what kills.
MISSED_BEATS = 3
MOST_RETRIES = 2
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@contextmanager
def opened(path: Path, name: str, heartbeat_seconds: int) -> Iterator[optuna.Study]:
    """The study of that name in that SQLite file, new or continued.

    Raises Mistake where the file cannot be used, in the body of the with statement too.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            yield _open(path, name, heartbeat_seconds)
    except (DBAPIError, StorageInternalError) as error:
        cause = getattr(error.__cause__ if isinstance(error, StorageInternalError) else error, "orig", error)
        raise Mistake(f"--storage {path}: {cause}; free or repair the file, or choose another") from error


def _open(path: Path, name: str, heartbeat_seconds: int) -> optuna.Study:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{path}.lock").open("w") as lock:
            # Two processes at once would create the tables twice, and SQLite changes its journal's mode for one alone.
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _open_alone(path, name, heartbeat_seconds)
    except (OSError, sqlite3.Error) as error:
        raise Mistake(f"--storage {path}: {error}; free or repair the file, or choose another") from error


def _open_alone(path: Path, name: str, heartbeat_seconds: int) -> optuna.Study:
    with closing(_connect(path)) as connection:
        # Readers then do not wait for the writer, nor it for them.
        connection.execute("PRAGMA journal_mode=WAL")
        tables = {table for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    # A kill may have left some of Optuna's tables only; it adds the others.
    if tables and tables.isdisjoint({"studies", "version_info", "alembic_version"}):
        raise Mistake(f"--storage {path}: an SQLite file of something else than Optuna; choose another")
    try:
        storage = optuna.storages.RDBStorage(
            # The path goes to SQLite itself: in a URL some characters would mean something.
            "sqlite:///study",
            engine_kwargs={"creator": lambda: _connect(path)},
            heartbeat_interval=heartbeat_seconds,
            grace_period=MISSED_BEATS * heartbeat_seconds,
            heartbeat_stale_trial_callback=retry,
        )
    except RuntimeError as error:
        raise Mistake(f"--storage {path}: {' '.join(str(error).split())}") from error
    return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    # Any process may be killed; only a power cut may cost the last trials, and the file stays whole even then.
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def check_conditions(study: optuna.Study, conditions: Mapping) -> None:
    """Losses can only be compared between trials of one task: raise Mistake where the study has another.

    conditions: what the trials have in common, by name; of types that JSON has.
    """
    conditions = json.loads(json.dumps(conditions))
    begun = study.user_attrs.get("conditions")
    if begun is None and study.get_trials(deepcopy=False):
        raise Mistake(f"--study-name {study.study_name}: hpo.py did not begin this study; choose another name")
    for name in conditions if begun else ():
        if begun.get(name) != conditions[name]:
            was, is_now = (_short(value) for value in (begun.get(name), conditions[name]))
            raise Mistake(
                f"--study-name {study.study_name} was begun with {name} {was}, not {is_now}; choose another name"
            )
    study.set_user_attr("conditions", conditions)


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    """One of PRUNERS, for trials that report after each of at most `epochs` epochs."""
    if name == "median":
        # During the warm-up of the learning rate, losses say little.
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 5))
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.NopPruner()


def suggest(trial: Trial, whole_network: bool) -> dict:
    """The trial's choice of the space: learning_rate, batch_size and hidden."""
    sizes = space.WHOLE_NETWORK_BATCH_SIZES if whole_network else space.BATCH_SIZES
    return {
        "learning_rate": trial.suggest_float("learning_rate", *space.LEARNING_RATES, log=True),
        "batch_size": trial.suggest_categorical("batch_size", sizes),
        "hidden": trial.suggest_categorical("hidden", space.HIDDEN_UNITS),
    }


def run_trials(
    study: optuna.Study,
    objective: Callable[[Trial], float],
    may_begin: Callable[[], bool],
    after: Callable[[optuna.Study, FrozenTrial], None],
    seed: int,
    worker: int = 0,
) -> None:
    """Run trials while may_begin(), asked before each, and call after(study, trial) when one has ended.

    objective: returns the loss; may raise optuna.TrialPruned. A trial ended by KeyboardInterrupt waits to be run again.
    """

    def owned(trial: Trial) -> float:
        trial.set_user_attr("process", os.getpid())
        try:
            return objective(trial)
        except KeyboardInterrupt:
            retry(study, study.get_trials(deepcopy=False)[trial.number])
            raise

    while may_begin():
        drawn = len(study.get_trials(deepcopy=False, states=(*ENDED, TrialState.RUNNING)))
        sequence = np.random.SeedSequence((seed, worker, drawn))
        study.sampler = optuna.samplers.TPESampler(seed=int(sequence.generate_state(1)[0]))
        try:
            study.optimize(owned, n_trials=1, callbacks=[after])
        except ValueError as error:
            # This process stood still (on a laptop that slept, say) and its trial was given to another.
            if not str(error).startswith("Cannot tell a "):
                raise


def retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a copy of a trial that was cut off, unless it has been already tried too often."""
    optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=MOST_RETRIES)(study, trial)


def give_back(study: optuna.Study, process: int) -> None:
    """End the trial that a process of this machine left running when it was killed, and queue it again."""
    for trial in running(study):
        if trial.user_attrs.get("process") == process:
            study.tell(trial.number, state=TrialState.FAIL)
            retry(study, trial)


def running(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are running, or were when their process was killed."""
    return study.get_trials(deepcopy=False, states=[TrialState.RUNNING])


def await_beats(study: optuna.Study, heartbeat_seconds: int) -> None:
    """Wait until each running trial is known to be another command's, or has been given back for want of beats."""
    end = time.monotonic() + (MISSED_BEATS + 2) * heartbeat_seconds
    if left := running(study):
        numbers = ", ".join(str(trial.number) for trial in left)
        print(f"waiting for a sign of life of trial {numbers}", flush=True)
    while left and time.monotonic() < end:
        optuna.storages.fail_stale_trials(study)
        time.sleep(0.2)
        left = running(study)
    for trial in left:
        # One that was killed before its first beat would never miss any: its time begins now.
        study._storage.record_heartbeat(trial._trial_id)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the least loss, None before there is one."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return min(complete, key=lambda trial: trial.value, default=None)


def write_best(study: optuna.Study, path: Path) -> None:
    """The best trial's choice as the JSON object that train.py --config takes; nothing before there is one."""
    best = None
    # Whoever writes last looks again: another process may have found a better one meanwhile.
    while (now := best_trial(study)) and (best is None or now.number != best.number):
        best = now
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(best.params, indent=1) + "\n").encode())


def line(study: optuna.Study, trial: FrozenTrial) -> str:
    """A trial's result as one line of name=value, fixed-point."""
    best = best_trial(study)
    words = {"trial": trial.number, "state": outcome(trial)}
    if trial.value is not None:
        words["validation_loss"] = f"{trial.value:.6f}"
    if accuracy := trial.user_attrs.get("validation_accuracy"):
        words["validation_accuracy"] = f"{accuracy:.6f}"
    for name, value in trial.params.items():
        words[name] = f"{value:.6f}" if isinstance(value, float) else value
    words |= {"epochs": len(trial.intermediate_values), "seconds": f"{trial.duration.total_seconds():.1f}"}
    return " ".join(f"{name}={value}" for name, value in words.items()) + (" best" if best == trial else "")


def outcome(trial: FrozenTrial) -> str:
    """complete, pruned, diverged, failed, running or waiting."""
    if "diverged" in trial.user_attrs:
        return "diverged"
    return {TrialState.FAIL: "failed"}.get(trial.state, trial.state.name.lower())
