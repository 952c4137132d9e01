"""Search learning rate, batch size and head with Optuna, and write the best choice for train.py --config.

    python model/hpo.py --train pictures --trials 20 --workers 2
    python model/train.py --train pictures --config build/search/best-parameters.json
    python model/hpo.py --backend sagemaker --dataset dogs --trials 20 --dry-run

The study lives in an SQLite file: the same command again adds trials to it, and first those that a kill cut off. The
objective is the validation loss of the best epoch; the test pictures are not looked at. With a frozen backbone all
trials share one pass over the pictures. With --backend sagemaker the same space becomes one Automatic Model Tuning job,
whose other flags are those of submit.py --tune.
"""

import argparse
import math
import os
import shlex
import signal
import sys
import time
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import submit
import torch
from classifier import space, study
from classifier.command import Parser, positive_float, positive_int, run
from classifier.fit import Diverged, Epoch
from classifier.mistake import Mistake
from classifier.search_report import write_search_report
from classifier.task import Task, add_recipe_flags, add_task_flags, recipe_from, task_from
from classifier.workers import CONTEXT, run_workers


def parser() -> Parser:
    """All of hpo.py's flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_task_flags(parser, os.environ)
    add_recipe_flags(parser)
    add_search_flags(parser)
    return parser


def add_search_flags(parser: Parser) -> None:
    """The flags that train.py does not have."""
    group = parser.add_argument_group("search")
    help_text = "sagemaker: a tuning job there, by the flags of submit.py --tune (%(default)s)"
    group.add_argument("--backend", choices=("optuna", "sagemaker"), default="optuna", help=help_text)
    group.add_argument("--trials", type=positive_int, default=20, help="of this run, by all workers (%(default)s)")
    help_text = "begin no trial later than this after the first"
    group.add_argument("--timeout", type=positive_float, default=math.inf, metavar="SECONDS", help=help_text)
    group.add_argument("--workers", type=positive_int, default=1, help="processes (%(default)s)")
    help_text = "which trials to end early, by the validation loss of each epoch (%(default)s)"
    group.add_argument("--pruner", choices=study.PRUNERS, default="median", help=help_text)
    group.add_argument("--study-name", default="search", metavar="NAME", help="(%(default)s)")
    file = {"type": Path, "metavar": "FILE"}
    folder = Path("build/search")
    group.add_argument("--storage", **file, default=folder / "study.db", help="SQLite (%(default)s)")
    help_text = "choice for train.py --config (%(default)s)"
    group.add_argument("--output", **file, default=folder / "best-parameters.json", help=help_text)
    group.add_argument("--report", **file, default=folder / "report.html", help="(%(default)s)")
    help_text = f"between a trial's signs of life; after {study.MISSED_BEATS} missed it is tried again (%(default)s)"
    group.add_argument("--heartbeat", type=positive_int, default=5, metavar="SECONDS", help=help_text)


def main() -> None:
    backend = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    backend.add_argument("--backend")
    chosen, others = backend.parse_known_args()
    if chosen.backend == "sagemaker":
        sys.exit(submit.main(["--tune", *others]))

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = parser().parse()
    for path in (options.output, options.report):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Mistake(f"cannot make the folder {path.parent}: {error.strerror}") from error
    task = task_from(options)
    # Opened before anything long begins, so that a file which cannot be used costs no time.
    with study.opened(options.storage, options.study_name, options.heartbeat) as opened:
        study.check_conditions(opened, conditions(task, options))
        # With a frozen backbone this extracts its features, so that every trial of every worker finds them there.
        train, validation = len(task.splits.train), len(task.splits.validation)
        print(f"{len(task.labels)} classes; {train} pictures to train on, {validation} to validate", flush=True)
        study.await_beats(opened, options.heartbeat)
        if not opened.get_trials(deepcopy=False):
            opened.enqueue_trial(default_choice(task))
        try:
            search(opened, task, options)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on", file=sys.stderr)
            report(opened, options)
            raise
        report(opened, options)
        if not (best := study.best_trial(opened)):
            raise Mistake("no trial came to an end with a finite loss; look at the data")
        print(f"{len(opened.trials)} trials; best is trial={best.number}, written to {options.output}")
        print(f"validation_loss={best.value:.6f}", flush=True)


def conditions(task: Task, options: Namespace) -> dict:
    """What makes the losses of two trials comparable."""
    recipe = asdict(recipe_from(options, task, learning_rate=1.0, batch_size=1))
    return {
        "classes": task.labels,
        "pictures": [len(task.scanned.train), len(task.scanned.validation)],
        "--backbone": task.backbone,
        "--weights": str(task.weights),
        "--freeze-backbone": task.freeze,
        "--image-size": task.image_size,
        "--horizontal-flip": task.augmentation.horizontal_flip,
        "--views": task.extraction.views,
    } | {f"--{key.replace('_', '-')}": recipe[key] for key in recipe if key not in ("learning_rate", "batch_size")}


def default_choice(task: Task) -> dict:
    """train.py's own, as near as the space has it: tried first, so that no search ends worse than none."""
    sizes = space.BATCH_SIZES if task.freeze else space.WHOLE_NETWORK_BATCH_SIZES
    batch_size = min(sizes, key=lambda size: abs(size - task.default_batch_size()))
    return {"learning_rate": task.default_learning_rate(), "batch_size": batch_size, "hidden": 0}


def search(opened: optuna.Study, task: Task, options: Namespace) -> None:
    """Run the trials here, or in several processes; raises Mistake where processes ended before the trials did."""
    trials, end = CONTEXT.Semaphore(options.trials), time.time() + options.timeout
    if options.workers == 1:
        take_trials(opened, 0, task, options, trials, end)
        return

    def on_death(process) -> None:
        print(f"{process.name} ended with exit code {process.exitcode}; the others go on", file=sys.stderr)
        study.give_back(opened, process.pid)
        if process.exitcode < 0:
            trials.release()

    with TemporaryDirectory() as folder:
        file = Path(folder) / "task.pt"
        torch.save(task, file)
        run_workers(options.workers, work, (options, file, trials, end), on_death)
    if time.time() < end and (left := trials.get_value()):
        raise Mistake(f"{left} of {options.trials} trials did not run, their workers ended; the same command goes on")


def work(number: int, options: Namespace, task_file: Path, trials, end: float) -> None:
    """One of several processes: the same trials on the same task, whose features are mapped and not copied."""
    # Bars of several processes would overwrite each other.
    os.environ["TERM"] = "dumb"
    task = torch.load(task_file, mmap=True, weights_only=False)
    with study.opened(options.storage, options.study_name, options.heartbeat) as opened:
        take_trials(opened, number, task, options, trials, end)


def take_trials(opened: optuna.Study, worker: int, task: Task, options: Namespace, trials, end: float) -> None:
    # On features a second thread waits more than it computes; --workers is what uses more cores.
    torch.set_num_threads(1 if task.freeze else max(1, torch.get_num_threads() // options.workers))
    opened.pruner = study.pruner(options.pruner, options.epochs)

    def may_begin() -> bool:
        return time.time() < end and trials.acquire(block=False)

    def after(opened: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        print(study.line(opened, trial), flush=True)
        study.write_best(opened, options.output)

    study.run_trials(opened, lambda trial: objective(trial, task, options), may_begin, after, options.seed, worker)


def objective(trial: optuna.Trial, task: Task, options: Namespace) -> float:
    """The validation loss of the best epoch with one choice of parameters."""
    choice = study.suggest(trial, whole_network=not task.freeze)

    def on_epoch(epoch: Epoch) -> None:
        trial.report(epoch.validation_loss, epoch.epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    recipe = recipe_from(options, task, choice["learning_rate"], choice["batch_size"])
    try:
        _, fit = task.train(choice["hidden"], recipe, on_epoch)
    except Diverged as error:
        trial.set_user_attr("diverged", str(error))
        raise optuna.TrialPruned from error
    trial.set_user_attr("validation_accuracy", fit.best.validation_accuracy)
    return fit.best.validation_loss


def report(opened: optuna.Study, options: Namespace) -> None:
    """Write the best choice and the page about all trials."""
    study.write_best(opened, options.output)
    # What train.py does not know is taken out of the command.
    only_search = Parser(description="")
    add_search_flags(only_search)
    _, same = only_search.parse_known_args()
    command = shlex.join(["python", "model/train.py", *same, "--config", str(options.output)])
    write_search_report(options.report, opened, command)


if __name__ == "__main__":
    run(main)
