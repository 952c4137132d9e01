"""SageMaker Automatic Model Tuning: the search of hpo.py as one request.

Field names and limits: the SageMaker API's CreateHyperParameterTuningJob.
"""

from collections.abc import Mapping

from classifier.jobs import training_job_definition
from classifier.space import BATCH_SIZES, HIDDEN_UNITS, LEARNING_RATES


def tuning_job_request(
    settings: Mapping,
    *,
    name: str,
    dataset: str,
    hyperparameters: Mapping[str, object] | None = None,
    trials: int = 10,
    parallel: int = 2,
) -> dict:
    """CreateHyperParameterTuningJob's request for hpo.py's space; the objective is the least validation loss.

    settings and dataset: as for training_job_definition(). name: at most 32 characters. hyperparameters: train.py's
    flags that stay the same in each trial.
    """
    definition = training_job_definition(settings, dataset=dataset, hyperparameters=hyperparameters)
    objective = {"Type": "Minimize", "MetricName": "validation_loss"}
    ranges = {
        "ContinuousParameterRanges": [
            {
                "Name": "learning-rate",
                "MinValue": str(LEARNING_RATES[0]),
                "MaxValue": str(LEARNING_RATES[1]),
                "ScalingType": "Logarithmic",
            }
        ],
        "CategoricalParameterRanges": [
            {"Name": "batch-size", "Values": [str(value) for value in BATCH_SIZES]},
            {"Name": "hidden", "Values": [str(value) for value in HIDDEN_UNITS]},
        ],
    }
    searched = {parameter["Name"] for group in ranges.values() for parameter in group}
    # The service refuses a name that is both fixed and searched.
    fixed = {key: value for key, value in definition.pop("HyperParameters").items() if key not in searched}
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": objective,
            "ResourceLimits": {"MaxNumberOfTrainingJobs": trials, "MaxParallelTrainingJobs": min(parallel, trials)},
            "ParameterRanges": ranges,
            # The median rule: trials worse than half of the others at the same epoch end early.
            "TrainingJobEarlyStoppingType": "Auto",
        },
        "TrainingJobDefinition": {"StaticHyperParameters": fixed, "TuningObjective": objective, **definition},
    }
