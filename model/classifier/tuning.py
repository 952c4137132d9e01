"""SageMaker Automatic Model Tuning: the search of hpo.py as one request.

Names and limits: the SageMaker API's CreateHyperParameterTuningJob and the developer guide's pages on tuning.
"""

import math
from collections.abc import Mapping, Sequence

from classifier import space
from classifier.jobs import training_job_definition
from classifier.mistake import Mistake

STRATEGIES = ("Bayesian", "Hyperband", "Random", "Grid")
OBJECTIVE = {"Type": "Minimize", "MetricName": "validation_loss"}
# Of one tuning job; a warm start's parents count against the trials too.
MOST_TRIALS, MOST_PARENTS, MOST_EPOCHS = 750, 5, 20_000


def tuning_job_request(
    settings: Mapping,
    *,
    name: str,
    dataset: str,
    hyperparameters: Mapping[str, object] | None = None,
    strategy: str = "Bayesian",
    trials: int | None = None,
    parallel: int = 2,
    warm_start: Sequence[str] = (),
    transfer_learning: bool = False,
    **job,
) -> dict:
    """CreateHyperParameterTuningJob's request for hpo.py's space; the objective is the least validation loss.

    settings, dataset and job: as for training_job_definition(). name: at most 32 characters. hyperparameters:
    train.py's flags that stay the same in each trial. trials: 10 unless given; a grid has as many as it has points.
    warm_start: names of finished tuning jobs to learn from; transfer_learning: theirs was other data or code.
    Raises Mistake where the service would refuse what was asked for.
    """
    definition = training_job_definition(settings, dataset=dataset, hyperparameters=hyperparameters, **job)
    ranges = parameter_ranges(strategy, trains_whole_network(hyperparameters or {}))
    searched = {parameter["Name"] for group in ranges.values() for parameter in group}
    # The service refuses a name that is both fixed and searched.
    fixed = {key: value for key, value in definition.pop("HyperParameters").items() if key not in searched}
    trials = number_of_trials(strategy, trials, ranges)
    config = {
        "Strategy": strategy,
        "HyperParameterTuningJobObjective": OBJECTIVE,
        "ResourceLimits": {"MaxNumberOfTrainingJobs": trials, "MaxParallelTrainingJobs": min(parallel, trials)},
        "ParameterRanges": ranges,
        # The median rule: trials worse than half of the others at the same epoch end early. Hyperband has a rule of
        # its own, and the service refuses both.
        "TrainingJobEarlyStoppingType": "Off" if strategy == "Hyperband" else "Auto",
    }
    if strategy == "Hyperband":
        resource = {"MinResource": 1, "MaxResource": most_epochs(hyperparameters or {})}
        config["StrategyConfig"] = {"HyperbandStrategyConfig": resource}
    request = {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": {"StaticHyperParameters": fixed, "TuningObjective": OBJECTIVE, **definition},
    }
    if warm_start:
        request["WarmStartConfig"] = warm_start_config(strategy, warm_start, transfer_learning)
    return request


def trains_whole_network(hyperparameters: Mapping) -> bool:
    """What train.py makes of these flags."""
    frozen = hyperparameters.get("freeze-backbone", hyperparameters.get("weights") != "none")
    return str(frozen).lower() in ("false", "0")


def parameter_ranges(strategy: str, whole_network: bool) -> dict:
    """hpo.py's space as ParameterRanges. A grid takes lists only: of the learning rates, ends and geometric middle."""
    low, high = space.LEARNING_RATES
    sizes = space.WHOLE_NETWORK_BATCH_SIZES if whole_network else space.BATCH_SIZES
    lists = {"batch-size": sizes, "hidden": space.HIDDEN_UNITS}
    if strategy == "Grid":
        lists = {"learning-rate": (low, math.sqrt(low * high), high)} | lists
    ranges = {
        "CategoricalParameterRanges": [
            {"Name": name, "Values": [f"{value:g}" for value in values]} for name, values in lists.items()
        ]
    }
    if strategy != "Grid":
        rates = {"Name": "learning-rate", "MinValue": f"{low:g}", "MaxValue": f"{high:g}", "ScalingType": "Logarithmic"}
        ranges["ContinuousParameterRanges"] = [rates]
    return ranges


def number_of_trials(strategy: str, trials: int | None, ranges: Mapping) -> int:
    """What was asked for, 10, or the grid's points; Mistake beyond the service's limits."""
    if strategy == "Grid":
        points = math.prod(len(parameter["Values"]) for parameter in ranges["CategoricalParameterRanges"])
        if trials not in (None, points):
            raise Mistake(f"--trials {trials}: a grid search tries all of its {points} points: leave --trials out")
        return points
    trials = trials or 10
    if trials > MOST_TRIALS:
        raise Mistake(f"--trials {trials}: a tuning job has {MOST_TRIALS} at most: start another with --warm-start")
    return trials


def most_epochs(hyperparameters: Mapping) -> int:
    """The epochs of a trial that Hyperband lets run to its end; Mistake where nothing says how many."""
    epochs = hyperparameters.get("epochs")
    if not (isinstance(epochs, int) and 2 <= epochs <= MOST_EPOCHS):
        given = "it needs the most epochs of a trial" if epochs is None else f"epochs={epochs} will not do"
        raise Mistake(f"--strategy Hyperband: {given}: add --hyperparameter epochs=N, N from 2 to {MOST_EPOCHS}")
    return epochs


def warm_start_config(strategy: str, parents: Sequence[str], transfer_learning: bool) -> dict:
    """WarmStartConfig; Mistake where the service has none."""
    parents = list(dict.fromkeys(parents))
    if strategy not in ("Bayesian", "Random"):
        raise Mistake(f"--warm-start {parents[0]}: {strategy} cannot use it: choose --strategy Bayesian or Random")
    if len(parents) > MOST_PARENTS:
        raise Mistake(f"--warm-start: {len(parents)} parents, the service takes {MOST_PARENTS}: name the best of them")
    return {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": parent} for parent in parents],
        "WarmStartType": "TransferLearning" if transfer_learning else "IdenticalDataAndAlgorithm",
    }
