"""Search learning rate, batch size and head with Optuna, and write the best choice for train.py --config.

    python model/hpo.py --train pictures --trials 20 --output build/search/best-parameters.json
    python model/train.py --train pictures --config build/search/best-parameters.json
    python model/hpo.py --backend sagemaker --settings settings.json --dataset dogs --dry-run

A study lives in an SQLite file: the same command again adds trials to it. The objective is the validation loss of the
best epoch; the test pictures are not looked at. With a frozen backbone all trials share one pass over the pictures.
"""

import json
import os
import time
from pathlib import Path

import boto3
import optuna
from botocore.exceptions import BotoCoreError, ClientError
from classifier import space
from classifier.archive import write_atomically
from classifier.command import Parser, positive_int, run
from classifier.fit import Diverged, Epoch
from classifier.mistake import Mistake
from classifier.task import Task, add_recipe_flags, add_task_flags, recipe_from, task_from
from classifier.tuning import tuning_job_request

SETTINGS = (
    "bucket",
    "kms_key_arn",
    "role_arn",
    "image_uri",
    "instance_type",
    "subnet_ids",
    "security_group_ids",
    "name",
    "region",
    "code_key",
)


def parser() -> Parser:
    """All of hpo.py's flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_task_flags(parser, os.environ)
    add_recipe_flags(parser)
    group = parser.add_argument_group("search")
    group.add_argument("--trials", type=positive_int, default=20, help="to run now (%(default)s)")
    group.add_argument("--study-name", default="search", help="(%(default)s)")
    group.add_argument("--storage", default="build/search/study.db", metavar="FILE", help="SQLite (%(default)s)")
    default = Path("build/search/best-parameters.json")
    group.add_argument("--output", type=Path, default=default, metavar="FILE", help="choice for --config (%(default)s)")
    group = parser.add_argument_group("on SageMaker")
    group.add_argument("--backend", choices=("optuna", "sagemaker"), default="optuna", help="(%(default)s)")
    group.add_argument("--settings", type=Path, metavar="FILE", help="Terraform's output `submission` as JSON")
    group.add_argument("--dataset", metavar="NAME", help="below datasets/ in the artifact bucket")
    group.add_argument("--dry-run", action="store_true", help="print the request instead of sending it")
    return parser


def main() -> None:
    options = parser().parse()
    if options.backend == "sagemaker":
        search_on_sagemaker(options)
    else:
        search(options)


def search(options) -> None:
    """Run trials and write the best choice so far."""
    task = task_from(options)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = open_study(options)
    if study.user_attrs.get("labels", task.labels) != task.labels:
        raise Mistake(f"--study-name {options.study_name} in {options.storage} has other classes; choose another")
    study.set_user_attr("labels", task.labels)
    study.optimize(lambda trial: objective(trial, task, options), n_trials=options.trials)
    if not study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        raise Mistake("no trial came to an end with a finite loss; look at the data")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.output, (json.dumps(study.best_params, indent=1) + "\n").encode())
    print(f"{len(study.trials)} trials; best is trial={study.best_trial.number}, written to {options.output}")
    print(f"validation_loss={study.best_value:.6f}", flush=True)


def open_study(options) -> optuna.Study:
    """The study of that name, new or continued."""
    path = Path(options.storage.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    # A trial whose process was killed stops beating, and is then tried again instead of counting as running for ever.
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{path}",
        heartbeat_interval=30,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=2),
    )
    study = optuna.create_study(storage=storage, study_name=options.study_name, load_if_exists=True)
    # A continued study must not repeat the draws it began with.
    study.sampler = optuna.samplers.TPESampler(seed=options.seed + len(study.trials))
    return study


def objective(trial: optuna.Trial, task: Task, options) -> float:
    """The validation loss of the best epoch with one choice of parameters."""
    low, high = space.LEARNING_RATES
    learning_rate = trial.suggest_float("learning_rate", low, high, log=True)
    batch_size = trial.suggest_categorical("batch_size", space.BATCH_SIZES)
    hidden = trial.suggest_categorical("hidden", space.HIDDEN_UNITS)

    def report(epoch: Epoch) -> None:
        print(f"trial={trial.number} {epoch.line()}", flush=True)

    recipe = recipe_from(options, task, learning_rate, batch_size)
    try:
        _, fit = task.train(hidden, recipe, report)
    except Diverged as error:
        raise optuna.TrialPruned(str(error)) from error
    trial.set_user_attr("validation_accuracy", fit.best.validation_accuracy)
    return fit.best.validation_loss


def search_on_sagemaker(options) -> None:
    """Start (or print) an Automatic Model Tuning job over the same space."""
    if not options.settings or not options.dataset:
        raise Mistake("--backend sagemaker needs --settings FILE and --dataset NAME")
    settings = read_settings(options.settings)
    fixed = {
        "backbone": options.backbone,
        "weights": options.weights,
        "image-size": options.image_size,
        "epochs": options.epochs,
        "patience": options.patience,
        "horizontal-flip": options.horizontal_flip,
        "seed": options.seed,
    }
    if options.freeze_backbone is not None:
        fixed["freeze-backbone"] = options.freeze_backbone
    request = tuning_job_request(
        settings,
        # The role may only name jobs so; of the 32 characters allowed the time takes 10.
        name=f"{settings['name']}-tune-{time.strftime('%m%d%H%M%S', time.gmtime())}",
        dataset=options.dataset,
        hyperparameters=fixed,
        trials=options.trials,
    )
    if options.dry_run:
        print(json.dumps(request, indent=2))
        return
    try:
        client = boto3.client("sagemaker", region_name=settings["region"])
        print(client.create_hyper_parameter_tuning_job(**request)["HyperParameterTuningJobArn"])
    except (BotoCoreError, ClientError) as error:
        raise Mistake(f"SageMaker refused the tuning job: {error}") from error


def read_settings(path: Path) -> dict:
    """The settings file's content; raises Mistake where a key is missing."""
    try:
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Mistake(f"--settings {path}: no readable JSON file: {error}") from error
    missing = [key for key in SETTINGS if not isinstance(settings, dict) or key not in settings]
    if missing:
        raise Mistake(f"--settings {path} lacks {', '.join(missing)}; write it with: terraform output -json submission")
    return settings


if __name__ == "__main__":
    run(main)
