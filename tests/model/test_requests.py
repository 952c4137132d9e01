"""The requests that submit.py and hpo.py send, for any combination of flags, against three kinds of rules.

botocore's service model names members, types, patterns, lengths and enumerations; its own validator looks at members
and types only, so that the rest is walked here. What the service refuses beyond its model (members that need or
exclude each other) stands below as assertions, from the API's reference and the developer guide.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

import botocore.session
import pytest
import submit
from botocore.validate import ParamValidator
from classifier import space, tuning
from classifier.jobs import METRICS
from classifier.mistake import Mistake
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from submission import request

SETTINGS = {
    "bucket": "classifier-111122223333-us-east-1-artifacts",
    "code_key": f"code/{'a' * 64}.tar.gz",
    "image_uri": "111122223333.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.10.0-cpu-py313-ubuntu22.04-sagemaker",
    "instance_type": "ml.m5.xlarge",
    "kms_key_arn": "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000",
    "name": "classifier",
    "region": "us-east-1",
    "role_arn": "arn:aws:iam::111122223333:role/classifier-training",
    "security_group_ids": ["sg-0123456789abcdef0"],
    "subnet_ids": ["subnet-0123456789abcdef0"],
}
SERVICE = botocore.session.get_session().get_service_model("sagemaker")
GRID_POINTS = 3 * len(space.BATCH_SIZES) * len(space.HIDDEN_UNITS)
HOURS_OF_28_DAYS = 28 * 24


def violations(value: object, shape, path: str = "") -> Iterator[str]:
    """What of a value is outside its shape's pattern, lengths, range or enumeration."""
    limits, kind = shape.metadata, shape.type_name
    if kind == "structure":
        for name, member in value.items():
            yield from violations(member, shape.members[name], f"{path}.{name}")
        return
    if kind == "list":
        for index, member in enumerate(value):
            yield from violations(member, shape.member, f"{path}[{index}]")
    if kind == "map":
        for key, member in value.items():
            yield from violations(key, shape.key, f"{path} key {key}")
            yield from violations(member, shape.value, f"{path}.{key}")
    size = len(value) if kind in ("string", "list", "map") else value
    if not limits.get("min", -math.inf) <= size <= limits.get("max", math.inf):
        yield f"{path}: {size} is not between {limits.get('min')} and {limits.get('max')}"
    if "pattern" in limits and not re.fullmatch(limits["pattern"], value):
        yield f"{path}: {value!r} does not match {limits['pattern']}"
    if "enum" in limits and value not in limits["enum"]:
        yield f"{path}: {value!r} is none of {limits['enum']}"


def assert_in_the_model(operation: str, body: dict) -> None:
    shape = SERVICE.operation_model(operation).input_shape
    report = ParamValidator().validate(body, shape)
    assert not report.has_errors(), report.generate_report()
    assert list(violations(body, shape)) == []


def assert_a_job_the_service_takes(job: dict, hyperparameters: dict) -> None:
    """The rules between members of a training job, or of a tuning job's definition of one."""
    stopping = job["StoppingCondition"]
    spot = job.get("EnableManagedSpotTraining", False)
    assert spot == ("MaxWaitTimeInSeconds" in stopping)
    if spot:
        assert stopping["MaxRuntimeInSeconds"] <= stopping["MaxWaitTimeInSeconds"] <= HOURS_OF_28_DAYS * 3600
        assert job["CheckpointConfig"]
    assert 1 <= stopping["MaxRuntimeInSeconds"] <= HOURS_OF_28_DAYS * 3600
    assert job["ResourceConfig"]["InstanceCount"] >= 1 and job["ResourceConfig"]["VolumeSizeInGB"] >= 1
    channels = [channel["ChannelName"] for channel in job["InputDataConfig"]]
    assert len(channels) == len(set(channels))
    # Without its last slash a prefix takes in whatever else begins so.
    uris = [channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in job["InputDataConfig"]]
    uris += [job["CheckpointConfig"]["S3Uri"]] if "CheckpointConfig" in job else []
    assert all(uri.startswith(f"s3://{SETTINGS['bucket']}/") and uri.endswith("/") for uri in uris)
    for metric in job["AlgorithmSpecification"]["MetricDefinitions"]:
        assert re.compile(metric["Regex"]).groups == 1
    for text in hyperparameters.values():
        json.loads(text)


def assert_a_search_the_service_takes(body: dict) -> None:
    """The rules between members of a tuning job."""
    config, job = body["HyperParameterTuningJobConfig"], body["TrainingJobDefinition"]
    strategy, limits, ranges = config["Strategy"], config["ResourceLimits"], config["ParameterRanges"]
    searched = [parameter["Name"] for group in ranges.values() for parameter in group]
    assert len(searched) == len(set(searched)) and not set(searched) & job["StaticHyperParameters"].keys()
    lists = ranges["CategoricalParameterRanges"]
    # Each value of a list counts as a hyperparameter.
    assert len(searched) - len(lists) + sum(len(parameter["Values"]) for parameter in lists) <= 30
    for parameter in ranges.get("ContinuousParameterRanges", ()):
        assert 0 < float(parameter["MinValue"]) < float(parameter["MaxValue"])
    names = {metric["Name"] for metric in job["AlgorithmSpecification"]["MetricDefinitions"]}
    assert config["HyperParameterTuningJobObjective"]["MetricName"] in names
    assert job["TuningObjective"] == config["HyperParameterTuningJobObjective"]
    assert limits["MaxParallelTrainingJobs"] <= limits["MaxNumberOfTrainingJobs"] <= 750
    assert ("StrategyConfig" in config) == (strategy == "Hyperband")
    if strategy == "Hyperband":
        assert config["TrainingJobEarlyStoppingType"] == "Off"
        resource = config["StrategyConfig"]["HyperbandStrategyConfig"]
        assert resource["MinResource"] < resource["MaxResource"] <= 20_000
        assert job["StaticHyperParameters"]["epochs"] == str(resource["MaxResource"])
    if strategy == "Grid":
        assert ranges.keys() == {"CategoricalParameterRanges"}
        assert limits["MaxNumberOfTrainingJobs"] == math.prod(len(parameter["Values"]) for parameter in lists)
    if "WarmStartConfig" in body:
        parents = [
            parent["HyperParameterTuningJobName"]
            for parent in body["WarmStartConfig"]["ParentHyperParameterTuningJobs"]
        ]
        assert len(parents) == len(set(parents))
        assert strategy in ("Bayesian", "Random")


# --- any combination of flags ------------------------------------------------------------------------------------

JOB_FLAGS = {
    "--instances": st.integers(1, 40),
    "--spot": st.just(True),
    "--max-runtime-hours": st.sampled_from([0.0001, 1, 5, HOURS_OF_28_DAYS, HOURS_OF_28_DAYS + 1]),
    "--max-wait-hours": st.sampled_from([0.0001, 2, 5.5, HOURS_OF_28_DAYS, HOURS_OF_28_DAYS + 1]),
    "--volume-gb": st.integers(1, 16_384),
    "--instance-type": st.sampled_from(SERVICE.shape_for("TrainingInstanceType").enum),
    "--hyperparameter": st.sampled_from(["epochs=1", "epochs=9", "epochs=9.5", "hidden=0", "note=\"a 'b'\n\"", "x=é"]),
}
SEARCH_FLAGS = {
    "--strategy": st.sampled_from(tuning.STRATEGIES),
    "--trials": st.sampled_from([1, 2, GRID_POINTS, 750, 751]),
    "--parallel": st.integers(1, 20),
    "--warm-start": st.lists(st.integers(0, 9), min_size=1, max_size=7),
    "--transfer-learning": st.just(True),
}
TUNE = {"--tune": st.just(True)}
FLAGS = st.one_of(
    st.fixed_dictionaries({}, optional=JOB_FLAGS),
    st.fixed_dictionaries(TUNE, optional=JOB_FLAGS | SEARCH_FLAGS),
    st.fixed_dictionaries({}, optional=JOB_FLAGS | SEARCH_FLAGS | TUNE),
)


def command_line(flags: dict) -> list[str]:
    words = ["--dataset", "dogs"]
    for flag, value in flags.items():
        for item in value if isinstance(value, list) else [value]:
            words += (
                [flag] if item is True else [flag, f"classifier-tune-{item}" if flag == "--warm-start" else str(item)]
            )
    return words


def is_a_mistake(flags: dict) -> bool:
    """Whether the service would refuse what these flags ask for, or they ask for nothing."""
    strategy, runtime, wait = (
        flags.get("--strategy", "Bayesian"),
        *map(flags.get, ("--max-runtime-hours", "--max-wait-hours")),
    )
    search = ("--strategy", "--trials", "--parallel", "--warm-start", "--transfer-learning")
    return any(
        (
            "--tune" not in flags and any(flag in flags for flag in search),
            "--transfer-learning" in flags and "--warm-start" not in flags,
            wait and "--spot" not in flags,
            wait and wait < (runtime or 4),
            max(runtime or 0, wait or 0) > HOURS_OF_28_DAYS,
            strategy == "Hyperband" and flags.get("--hyperparameter") != "epochs=9",
            strategy in ("Hyperband", "Grid") and "--warm-start" in flags,
            strategy == "Grid" and flags.get("--trials", GRID_POINTS) != GRID_POINTS,
            flags.get("--trials", 0) > 750,
            "--tune" in flags and flags.get("--hyperparameter") == "hidden=0",
            len(set(flags.get("--warm-start", ()))) > 5,
        )
    )


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(FLAGS, st.sampled_from([None, f"s3://{SETTINGS['bucket']}/training/job/checkpoints/features/"]))
def test_any_flags_make_a_request_the_service_takes_or_a_mistake(flags, features_uri):
    try:
        options = submit.parse_arguments(command_line(flags))
        body = request.build_request(
            options, SETTINGS | {"instance_type": options.instance_type or "ml.m5.xlarge"}, "dogs", features_uri, 0
        )
    except Mistake as mistake:
        event("mistake")
        assert is_a_mistake(flags), mistake
        named = re.findall(r"--[a-z-]+", str(mistake))
        assert named and named[0] in (*flags, "--strategy"), mistake
        return
    event("request")
    assert not is_a_mistake(flags)
    if "--tune" in flags:
        assert_in_the_model("CreateHyperParameterTuningJob", body)
        assert_a_search_the_service_takes(body)
        name, job = body["HyperParameterTuningJobName"], body["TrainingJobDefinition"]
        assert_a_job_the_service_takes(job, job["StaticHyperParameters"])
    else:
        assert_in_the_model("CreateTrainingJob", body)
        name, job = body["TrainingJobName"], body
        assert_a_job_the_service_takes(job, job["HyperParameters"])
        assert job["CheckpointConfig"]
    if "CheckpointConfig" in job:
        # Nothing but the job's own folder: another's would be restored into it.
        assert job["CheckpointConfig"]["S3Uri"] == f"s3://{SETTINGS['bucket']}/training/{name}/checkpoints/"
    assert job["ResourceConfig"]["InstanceCount"] == flags.get("--instances", 1)
    assert ("features" in [channel["ChannelName"] for channel in job["InputDataConfig"]]) == bool(features_uri)


SEARCHES = {
    "bayesian": ["--tune"],
    "hyperband": ["--tune", "--strategy", "Hyperband", "--hyperparameter", "epochs=9"],
    "random": ["--tune", "--strategy", "Random", "--trials", "30"],
    "grid": ["--tune", "--strategy", "Grid"],
    "warm": ["--tune", "--warm-start", "classifier-tune-0101000000"],
    "transfer": ["--tune", "--warm-start", "classifier-tune-0101000000", "--transfer-learning", "--trials", "750"],
}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("spot", [[], ["--spot"], ["--spot", "--max-wait-hours", "9"]], ids=" ".join)
@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize("features_uri", [None, "s3://classifier-111122223333-us-east-1-artifacts/features/0/"])
def test_each_kind_of_search_goes_with_each_kind_of_job(search, spot, instances, features_uri):
    words = ["--dataset", "dogs", *SEARCHES[search], *spot, "--instances", str(instances)]
    body = request.build_request(submit.parse_arguments(words), SETTINGS, "dogs", features_uri, 0)
    assert_in_the_model("CreateHyperParameterTuningJob", body)
    assert_a_search_the_service_takes(body)
    job = body["TrainingJobDefinition"]
    assert_a_job_the_service_takes(job, job["StaticHyperParameters"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"TrainingJobName": "under_score"}, "TrainingJobName: 'under_score' does not match"),
        ({"TrainingJobName": "n" * 64}, "TrainingJobName: 64 is not between 1 and 63"),
        ({"InputDataConfig": []}, "InputDataConfig: 0 is not between 1 and 20"),
        ({"ResourceConfig": {"InstanceType": "ml.m5.xlarg"}}, "InstanceType: 'ml.m5.xlarg' is none of"),
        ({"HyperParameters": {"epochs": "1\n2"}}, "HyperParameters.epochs: '1\\n2' does not match"),
        ({"RetryStrategy": {"MaximumRetryAttempts": 31}}, "MaximumRetryAttempts: 31 is not between 1 and 30"),
    ],
)
def test_the_check_sees_what_botocores_validator_does_not(change, named):
    body = request.build_request(submit.parse_arguments(["--dataset", "dogs"]), SETTINGS, "dogs", None, 0)
    assert_in_the_model("CreateTrainingJob", body)
    shape = SERVICE.operation_model("CreateTrainingJob").input_shape
    assert named in "; ".join(violations(body | change, shape))


def test_a_disk_that_encrypts_itself_gets_no_key():
    def keyed(instance_type: str) -> bool:
        body = request.build_request(
            submit.parse_arguments(["--dataset", "dogs"]), SETTINGS | {"instance_type": instance_type}, "dogs", None, 0
        )
        return "VolumeKmsKeyId" in body["ResourceConfig"]

    types = SERVICE.shape_for("TrainingInstanceType").enum
    families = {name.split(".")[1] for name in types if not keyed(name)}
    assert families >= {"g4dn", "g5", "p4d", "p5", "r5d", "trn1"}
    assert not families & {"m5", "c5", "c5n", "c6i", "c7i-flex", "m6i", "p2", "p3", "r5", "t3"}


# --- single flags ------------------------------------------------------------------------------------------------


def build(*arguments: str, features_uri: str | None = None) -> dict:
    options = submit.parse_arguments(["--dataset", "dogs", *arguments])
    return request.build_request(options, SETTINGS, "dogs", features_uri, 0)


def test_a_spot_job_waits_twice_its_runtime_unless_told_otherwise():
    assert build("--spot", "--max-runtime-hours", "1.5")["StoppingCondition"] == {
        "MaxRuntimeInSeconds": 5400,
        "MaxWaitTimeInSeconds": 10800,
    }
    assert build("--spot", "--max-wait-hours", "4")["StoppingCondition"]["MaxWaitTimeInSeconds"] == 4 * 3600
    longest = build("--spot", "--max-runtime-hours", str(HOURS_OF_28_DAYS))
    assert longest["StoppingCondition"]["MaxWaitTimeInSeconds"] == HOURS_OF_28_DAYS * 3600


@pytest.mark.parametrize("search", [[], ["--tune"]], ids=["training", "tuning"])
def test_a_job_is_private_encrypted_and_runs_the_stacks_code(search):
    body = build(*search)
    job = body["TrainingJobDefinition"] if search else body
    assert job["VpcConfig"] == {"Subnets": ["subnet-0123456789abcdef0"], "SecurityGroupIds": ["sg-0123456789abcdef0"]}
    assert job["OutputDataConfig"]["KmsKeyId"] == job["ResourceConfig"]["VolumeKmsKeyId"] == SETTINGS["kms_key_arn"]
    assert job["EnableInterContainerTrafficEncryption"] is True
    fixed = {
        name: json.loads(text) for name, text in job["StaticHyperParameters" if search else "HyperParameters"].items()
    }
    assert fixed["sagemaker_program"] == "model/train.py"
    assert fixed["sagemaker_submit_directory"] == f"s3://{SETTINGS['bucket']}/{SETTINGS['code_key']}"


def test_hosts_are_started_without_a_wrapper():
    body = build("--instances", "3")
    assert body["ResourceConfig"]["InstanceCount"] == 3
    assert body["EnableInterContainerTrafficEncryption"] is True
    assert not [name for name in body["HyperParameters"] if "mpi" in name or "torchrun" in name or "launcher" in name]


def test_features_are_a_channel_of_each_trial_whose_checkpoints_are_kept_only_where_they_may_be_needed():
    uri = f"s3://{SETTINGS['bucket']}/features/{'0' * 64}/"
    job = build("--tune", features_uri=uri)["TrainingJobDefinition"]
    sources = {c["ChannelName"]: c["DataSource"]["S3DataSource"] for c in job["InputDataConfig"]}
    assert sources["features"]["S3Uri"] == uri
    assert sources["features"]["S3DataDistributionType"] == "FullyReplicated"
    assert "CheckpointConfig" not in job
    assert "CheckpointConfig" in build("--tune", "--spot")["TrainingJobDefinition"]


def test_a_warm_start_says_what_the_parents_had():
    parents = (
        "--warm-start",
        "classifier-tune-1",
        "--warm-start",
        "classifier-tune-2",
        "--warm-start",
        "classifier-tune-1",
    )
    config = build("--tune", *parents)["WarmStartConfig"]
    names = [parent["HyperParameterTuningJobName"] for parent in config["ParentHyperParameterTuningJobs"]]
    assert names == ["classifier-tune-1", "classifier-tune-2"]
    assert config["WarmStartType"] == "IdenticalDataAndAlgorithm"
    assert build("--tune", "--transfer-learning", *parents)["WarmStartConfig"]["WarmStartType"] == "TransferLearning"


def test_the_strategies_search_one_space():
    spaces = []
    for strategy in tuning.STRATEGIES:
        body = build("--tune", "--strategy", strategy, "--hyperparameter", "epochs=9")
        ranges = body["HyperParameterTuningJobConfig"]["ParameterRanges"]
        spaces.append({parameter["Name"] for group in ranges.values() for parameter in group})
    assert spaces == [{"learning-rate", "batch-size", "hidden"}] * 4
    [rates] = [p["Values"] for p in ranges["CategoricalParameterRanges"] if p["Name"] == "learning-rate"]
    low, middle, high = map(float, rates)
    assert middle / low == pytest.approx(high / middle)


@pytest.mark.parametrize(
    ("hyperparameter", "batch_sizes"),
    [
        ("epochs=3", space.BATCH_SIZES),
        ("freeze-backbone=true", space.BATCH_SIZES),
        ("freeze-backbone=False", space.WHOLE_NETWORK_BATCH_SIZES),
        ("weights=none", space.WHOLE_NETWORK_BATCH_SIZES),
    ],
)
def test_the_space_is_that_of_what_is_trained(hyperparameter, batch_sizes):
    body = build("--tune", "--hyperparameter", hyperparameter)
    ranges = body["HyperParameterTuningJobConfig"]["ParameterRanges"]
    [rates] = ranges["ContinuousParameterRanges"]
    assert (float(rates["MinValue"]), float(rates["MaxValue"])) == space.LEARNING_RATES
    [sizes] = [p["Values"] for p in ranges["CategoricalParameterRanges"] if p["Name"] == "batch-size"]
    assert tuple(map(int, sizes)) == batch_sizes


@pytest.mark.parametrize(
    "arguments",
    [
        ("--hyperparameter", "two words=1"),
        ("--hyperparameter", "=1"),
        ("--hyperparameter", f"{'k' * 257}=1"),
        ("--hyperparameter", f"note={'v' * 2500}"),
        [word for number in range(97) for word in ("--hyperparameter", f"k{number}=1")],
        ("--tune", "--warm-start", "no_job"),
        ("--tune", "--warm-start", "n" * 33),
        ("--instances", "0"),
        ("--max-runtime-hours", "inf"),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_what_the_service_would_refuse_is_a_mistake(arguments):
    with pytest.raises(Mistake, match=arguments[-2]):
        build(*arguments)


def test_a_name_too_long_for_sagemaker_is_refused():
    with pytest.raises(Mistake, match="32"):
        request.job_name("n" * 20, "tune", 0)
    with pytest.raises(Mistake, match="63"):
        request.job_name("n" * 50, "train", 0)


def test_hyperparameters_are_spelt_as_the_flags_are():
    assert request.parse_hyperparameters(["batch_size=8", "--learning-rate=1e-3", "weights=none", "epochs=NaN"]) == {
        "batch-size": 8,
        "learning-rate": 0.001,
        "weights": "none",
        "epochs": "NaN",
    }


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True), st.integers() | st.booleans() | st.text()))
def test_hyperparameters_keep_their_values(values):
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    parsed = request.parse_hyperparameters([f"{key}={text}" for key, text in texts.items()])
    assert parsed.keys() == values.keys()
    for key, value in parsed.items():
        # What reaches train.py is the value's text: it must be what was typed, up to a number's or a string's form.
        assert value == texts[key] or value == json.loads(texts[key])
        json.dumps(value, allow_nan=False)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("text", "read"), [("0.000010", "0.000010"), ("12.5", "12.5"), ("1e-05", None), ("nan", None)])
def test_a_metrics_expression_reads_fixed_point_numbers_only(name, text, read):
    found = re.search(METRICS[name], f"epoch=3 best_{name}=9.9 {name}={text} x")
    assert (found and found.group(1)) == read
