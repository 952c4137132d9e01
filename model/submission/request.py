"""From submit.py's options to the request of CreateTrainingJob or CreateHyperParameterTuningJob."""

from __future__ import annotations

import json
import math
import re
import time
from argparse import Namespace

from classifier.jobs import checkpoints_uri, training_job_definition
from classifier.mistake import Mistake
from classifier.tuning import tuning_job_request

# What SageMaker allows: characters of a job's name, hours of a job, hyperparameters (four of them the image's own).
LONGEST_TRAINING_NAME, LONGEST_TUNING_NAME = 63, 32
MOST_HOURS = 28 * 24
MOST_HYPERPARAMETERS = 100 - 4
LONGEST_VALUE = 2500
KEY = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,255}")
JOB = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


def build_request(
    options: Namespace, settings: dict, dataset: str, features_uri: str | None, now_seconds: float
) -> dict:
    """The request of CreateTrainingJob, or with --tune of CreateHyperParameterTuningJob; raises Mistake."""
    name = job_name(settings["name"], "tune" if options.tune else "train", now_seconds)
    job = {
        "dataset": dataset,
        "hyperparameters": parse_hyperparameters(options.hyperparameter),
        "features_uri": features_uri,
        # All trials of a tuning job would share the one folder, for nothing unless they may be interrupted.
        "checkpoints_uri": checkpoints_uri(settings, name) if options.spot or not options.tune else None,
        "instance_count": options.instances,
        "volume_gb": options.volume_gb,
        **limits(options),
    }
    if not options.tune:
        return {"TrainingJobName": name, **training_job_definition(settings, **job)}
    for parent in options.warm_start:
        if not (JOB.fullmatch(parent) and len(parent) <= LONGEST_TUNING_NAME):
            raise Mistake(f"--warm-start {parent}: no tuning job has such a name: submit.py --tune printed it")
    request = tuning_job_request(
        settings,
        name=name,
        strategy=options.strategy or "Bayesian",
        trials=options.trials,
        parallel=options.parallel or 2,
        warm_start=options.warm_start,
        transfer_learning=options.transfer_learning,
        **job,
    )
    if searched := job["hyperparameters"].keys() - request["TrainingJobDefinition"]["StaticHyperParameters"].keys():
        raise Mistake(f"--hyperparameter {min(searched)}: the search varies it: leave it out")
    return request


def job_name(name: str, kind: str, now_seconds: float) -> str:
    """`<name>-<kind>-<UTC time>`, which the roles' policies allow; Mistake where SageMaker's limit is too short."""
    if kind == "tune":
        # 32 characters are few: the month is enough, since a finished search is looked for by its start.
        result, longest = f"{name}-tune-{time.strftime('%m%d%H%M%S', time.gmtime(now_seconds))}", LONGEST_TUNING_NAME
    else:
        result = f"{name}-train-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now_seconds))}"
        longest = LONGEST_TRAINING_NAME
    if len(result) > longest:
        raise Mistake(f"{result}: SageMaker allows {longest} characters: shorten Terraform's variable name ({name})")
    return result


def parse_hyperparameters(pairs: list[str]) -> dict[str, object]:
    """key=value texts to values: numbers and booleans as such, anything else as text; Mistake for another form."""
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        # As the flag is spelt, so that a slip is not found by the job, minutes later.
        key = key.lstrip("-").replace("_", "-")
        if not (equals and KEY.fullmatch(key)):
            raise Mistake(f"--hyperparameter {pair}: write key=value, epochs=20 for one")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        simple = isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))
        values[key] = value if simple else text
        if len(json.dumps(values[key])) > LONGEST_VALUE:
            raise Mistake(f"--hyperparameter {key}: its value is longer than SageMaker's {LONGEST_VALUE}: shorten it")
    if len(values) > MOST_HYPERPARAMETERS:
        raise Mistake(f"--hyperparameter: {len(values)} given, SageMaker takes {MOST_HYPERPARAMETERS}: leave some out")
    return values


def limits(options: Namespace) -> dict[str, int | None]:
    """max_runtime_seconds and, of a spot job, max_wait_seconds; Mistake for hours that SageMaker refuses."""
    runtime = options.max_runtime_hours
    wait = options.max_wait_hours or min(2 * runtime, MOST_HOURS)
    for flag, hours in (("--max-runtime-hours", runtime), ("--max-wait-hours", wait)):
        if hours > MOST_HOURS:
            raise Mistake(f"{flag} {hours:g}: SageMaker allows {MOST_HOURS}, which is 28 days: give less")
    if options.max_wait_hours and not options.spot:
        raise Mistake(f"--max-wait-hours {wait:g}: only a spot job waits: add --spot")
    if wait < runtime:
        remedy = "give at least as many hours as --max-runtime-hours, which are in it"
        raise Mistake(f"--max-wait-hours {wait:g}: less than the {runtime:g} hours of running: {remedy}")
    seconds = {"max_runtime_seconds": math.ceil(runtime * 3600), "max_wait_seconds": math.ceil(wait * 3600)}
    return seconds if options.spot else seconds | {"max_wait_seconds": None}
