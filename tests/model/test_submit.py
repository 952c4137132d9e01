"""submit.py against moto's S3 and SageMaker in this process; its requests themselves are test_requests.py's.

moto's training jobs are Completed at once and run nothing, so that a job's course is scripted with botocore's Stubber,
which checks each answer against the service model too.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import submit
from botocore.stub import Stubber
from classifier.feature_cache import FeatureCache
from moto import mock_aws
from submission import dataset, following, request

BUCKET = "classifier-111122223333-us-east-1-artifacts"
SETTINGS = {
    "bucket": BUCKET,
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


@pytest.fixture
def settings_file(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(SETTINGS))
    monkeypatch.setenv("SUBMISSION_SETTINGS", str(path))
    return path


@pytest.fixture
def s3():
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "dogs"
    for name in ("train/husky/1.png", "train/pug/1.png", "valid/pug/ö 2.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (folder / ".DS_Store").write_bytes(b"hidden")
    return folder


def keys(s3, prefix: str = "") -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]


def upload(s3, folder: Path, name: str = "dogs") -> str:
    return dataset.upload_dataset(s3, folder, BUCKET, name, SETTINGS["kms_key_arn"], lambda done, total: None)


def uploads(s3) -> list[str]:
    """A list that fills with the keys that are put from now on."""
    seen = []
    s3.meta.events.register("before-call.s3.PutObject", lambda params, **_: seen.append(params["url_path"]))
    return seen


# --- the request -------------------------------------------------------------------------------------------------


def dry_run(capsys, *arguments: str) -> dict:
    assert submit.main(["--dry-run", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_dry_run_prints_the_request_and_calls_nothing(settings_file, capsys, monkeypatch, folder):
    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", lambda *_: pytest.fail("AWS was called"))
    printed = dry_run(capsys, "--data", str(folder), "--hyperparameter", "epochs=3", "--instance-type", "ml.c5.xlarge")
    assert re.fullmatch(r"classifier-train-\d{8}-\d{6}", printed["TrainingJobName"])
    assert printed["HyperParameters"]["epochs"] == "3"
    assert printed["ResourceConfig"]["InstanceType"] == "ml.c5.xlarge"
    assert printed["RoleArn"] == SETTINGS["role_arn"]
    assert f"s3://{BUCKET}/datasets/dogs/" in json.dumps(printed["InputDataConfig"])
    assert printed["VpcConfig"] == {
        "Subnets": SETTINGS["subnet_ids"],
        "SecurityGroupIds": SETTINGS["security_group_ids"],
    }


def test_it_runs_as_a_script(settings_file):
    command = [sys.executable, submit.__file__, "--dataset", "dogs", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["TrainingJobName"].startswith("classifier-train-")


def test_the_search_command_submits_the_same_tuning_job(settings_file, capsys):
    script = Path(submit.__file__).with_name("hpo.py")
    flags = ["--dataset", "dogs", "--trials", "7", "--dry-run"]
    command = [sys.executable, script, *flags, "--backend", "sagemaker"]
    printed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    expected = dry_run(capsys, *flags[:-1], "--tune")
    named = "HyperParameterTuningJobName"  # holds the time
    assert printed.pop(named).startswith("classifier-tune-") and expected.pop(named)
    assert printed == expected


@pytest.mark.parametrize("key", SETTINGS)
def test_a_missing_setting_is_named(key, tmp_path, capsys):
    path = tmp_path / "submission.json"
    path.write_text(json.dumps({name: value for name, value in SETTINGS.items() if name != key}))
    assert submit.main(["--settings", str(path), "--dataset", "dogs", "--dry-run"]) == 2
    assert key in one_line(capsys.readouterr().err)


def one_line(text: str) -> str:
    assert text.count("\n") == 1 and "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--data"),
        (["--dataset", "a/b"], "a/b"),
        (["--dataset", "../up"], "../up"),
        (["--dataset", "dogs", "--hyperparameter", "epochs"], "epochs"),
        (["--dataset", "dogs", "--tune", "--hyperparameter", "learning_rate=1"], "learning-rate"),
        (["--data", "/no/such/folder"], "/no/such/folder"),
        (["--upload-only", "--dataset", "dogs"], "--upload-only"),
        (["--settings", "/no/such/file", "--dataset", "dogs"], "terraform output -json submission"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--dataset", "dogs", "--max-wait-hours", "9"], "add --spot"),
        (["--dataset", "dogs", "--spot", "--max-wait-hours", "3"], "--max-runtime-hours"),
        (["--dataset", "dogs", "--trials", "9"], "add --tune"),
        (["--dataset", "dogs", "--tune", "--transfer-learning"], "--warm-start"),
        (["--dataset", "dogs", "--tune", "--strategy", "Hyperband"], "epochs=N"),
        (["--dataset", "dogs", "--tune", "--strategy", "Grid", "--trials", "5"], "leave --trials out"),
        (["--dataset", "dogs", "--features", "no/such/folder"], "no/such/folder"),
        (["--dataset", "dogs", "--features", "classifier-train-1"], "training/classifier-train-1/checkpoints/features"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(arguments, named, settings_file, s3, capsys):
    assert submit.main(arguments) == 2
    assert named in one_line(capsys.readouterr().err)
    assert keys(s3) == []


def test_help_fits_a_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        submit.main(["--help"])
    assert len(capsys.readouterr().out.splitlines()) <= 40


# --- features ----------------------------------------------------------------------------------------------------


@pytest.fixture
def features(tmp_path) -> Iterator[Path]:
    """A cache folder that a training still has open."""
    with FeatureCache(tmp_path / "features", 10**6) as cache:
        cache.put({b"husky": b"row"})
        yield tmp_path / "features"


def feature_channel() -> str:
    """The S3 folder of the recorded job's features."""
    sagemaker = boto3.client("sagemaker", region_name="us-east-1")
    channels = sagemaker.describe_training_job(TrainingJobName=JOB)["InputDataConfig"]
    [uri] = [c["DataSource"]["S3DataSource"]["S3Uri"] for c in channels if c["ChannelName"] == "features"]
    return uri


def test_a_folders_features_are_uploaded_whole_under_the_name_of_their_content(
    settings_file, s3, features, job_name, tmp_path
):
    s3.put_object(Bucket=BUCKET, Key=f"training/{JOB}/output/model.tar.gz", Body=sagemakers_tar(CONTENT))
    assert submit.main(["--dataset", "dogs", "--features", str(features)]) == 0
    [key] = keys(s3, "features/")
    assert feature_channel() == f"s3://{BUCKET}/{key.removesuffix('features.db')}"
    stored = s3.get_object(Bucket=BUCKET, Key=key)
    body = stored["Body"].read()
    assert key == f"features/{hashlib.sha256(body).hexdigest()}/features.db"
    assert (stored["ServerSideEncryption"], stored["SSEKMSKeyId"]) == ("aws:kms", SETTINGS["kms_key_arn"])
    channel = tmp_path / "channel"
    channel.mkdir()
    (channel / "features.db").write_bytes(body)
    with FeatureCache(None, 0, given=channel) as cache:
        assert cache.get([b"husky"]) == {b"husky": b"row"}


def test_the_same_features_are_uploaded_once(settings_file, s3, features, capsys):
    found = [submit.find_features(str(features), SETTINGS, features.parent) for _ in range(2)]
    assert found[0].uri == found[1].uri
    put = uploads(s3)
    for one in found:
        submit.provide(s3, one, SETTINGS)
    assert len(put) == 1


def test_a_jobs_features_are_taken_where_it_left_them(settings_file, s3, job_name, capsys):
    s3.put_object(Bucket=BUCKET, Key=f"training/{JOB}/output/model.tar.gz", Body=sagemakers_tar(CONTENT))
    left = "training/classifier-train-1/checkpoints/features/"
    s3.put_object(Bucket=BUCKET, Key=f"{left}features.db", Body=b"features")
    assert submit.main(["--dataset", "dogs", "--features", "classifier-train-1"]) == 0
    assert feature_channel() == f"s3://{BUCKET}/{left}"
    assert keys(s3, "features/") == []


@pytest.mark.parametrize("content", [None, b"no database, but long enough to be looked at" * 100, b""])
def test_a_folder_without_features_is_a_mistake_before_anything_is_sent(content, settings_file, s3, tmp_path, capsys):
    if content is not None:
        (tmp_path / "features.db").write_bytes(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert submit.main(["--dataset", "dogs", "--features", str(tmp_path)]) == 2
    assert "features.db" in one_line(capsys.readouterr().err)
    assert keys(s3) == [] and sorted(path.name for path in tmp_path.iterdir()) == before


# --- uploading ---------------------------------------------------------------------------------------------------


def test_upload_puts_the_files_and_then_the_manifest(s3, folder):
    put = uploads(s3)
    assert upload(s3, folder) == f"s3://{BUCKET}/datasets/dogs/"
    assert put[-1].endswith("datasets/dogs/manifest.json") and len(put) == 4
    manifest = json.load(s3.get_object(Bucket=BUCKET, Key="datasets/dogs/manifest.json")["Body"])
    assert manifest["files"].keys() == {"train/husky/1.png", "train/pug/1.png", "valid/pug/ö 2.png"}
    for name, entry in manifest["files"].items():
        stored = s3.get_object(Bucket=BUCKET, Key=f"datasets/dogs/{name}")
        body = stored["Body"].read()
        assert body == (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
        assert (stored["ServerSideEncryption"], stored["SSEKMSKeyId"]) == ("aws:kms", SETTINGS["kms_key_arn"])


def test_a_second_upload_sends_nothing(s3, folder):
    upload(s3, folder)
    put = uploads(s3)
    upload(s3, folder)
    assert put == []


@pytest.mark.fault
def test_an_interrupted_upload_goes_on_where_it_stopped(s3, folder):
    upload(s3, folder)
    s3.delete_object(Bucket=BUCKET, Key="datasets/dogs/manifest.json")
    s3.delete_object(Bucket=BUCKET, Key="datasets/dogs/train/pug/1.png")
    put = uploads(s3)
    upload(s3, folder)
    assert [key.rpartition("datasets/dogs/")[2] for key in put] == ["train/pug/1.png", "manifest.json"]


def test_a_changed_file_of_the_same_size_is_sent_again(s3, folder):
    upload(s3, folder)
    changed = folder / "train/pug/1.png"
    changed.write_bytes(changed.read_bytes()[::-1])
    upload(s3, folder)
    assert s3.get_object(Bucket=BUCKET, Key="datasets/dogs/train/pug/1.png")["Body"].read() == changed.read_bytes()
    manifest = json.load(s3.get_object(Bucket=BUCKET, Key="datasets/dogs/manifest.json")["Body"])
    assert manifest["files"]["train/pug/1.png"]["sha256"] == hashlib.sha256(changed.read_bytes()).hexdigest()


def test_files_the_folder_has_not_are_refused_before_anything_is_sent(s3, folder):
    s3.put_object(Bucket=BUCKET, Key="datasets/dogs/train/cat/1.png", Body=b"cat")
    s3.put_object(Bucket=BUCKET, Key="datasets/dogs-2/train/cat/1.png", Body=b"another data set")
    put = uploads(s3)
    with pytest.raises(dataset.Mistake, match=r"train/cat/1\.png"):
        upload(s3, folder)
    assert put == []


@pytest.mark.fault
def test_a_failing_upload_leaves_no_manifest(s3, folder):
    def fail(params, **_):
        if "husky" in params["url_path"]:
            raise ConnectionError("cut off")

    s3.meta.events.register("before-call.s3.PutObject", fail)
    with pytest.raises(Exception, match="cut off"):
        upload(s3, folder)
    assert "datasets/dogs/manifest.json" not in keys(s3)


def test_upload_only_starts_no_job(settings_file, s3, folder, capsys):
    assert submit.main(["--data", str(folder), "--upload-only"]) == 0
    assert "datasets/dogs/manifest.json" in keys(s3)
    assert boto3.client("sagemaker", region_name="us-east-1").list_training_jobs()["TrainingJobSummaries"] == []


# --- following ---------------------------------------------------------------------------------------------------

JOB = "classifier-train-20260101-000000"
ARCHIVE_URI = f"s3://{BUCKET}/training/{JOB}/output/model.tar.gz"


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def training_answer(status: str, secondary: str, **more: object) -> dict:
    return {
        "TrainingJobName": JOB,
        "TrainingJobArn": f"arn:aws:sagemaker:us-east-1:111122223333:training-job/{JOB}",
        "ModelArtifacts": {"S3ModelArtifacts": ARCHIVE_URI},
        "TrainingJobStatus": status,
        "SecondaryStatus": secondary,
        "AlgorithmSpecification": {"TrainingInputMode": "File"},
        "ResourceConfig": {"VolumeSizeInGB": 1},
        "StoppingCondition": {},
        "CreationTime": 0,
        **more,
    }


def follow_script(*answers: dict, stream: io.StringIO | None = None) -> tuple[str, str, float]:
    """Follow a training job that answers with these; (archive URI, what was written, seconds slept)."""
    client, clock, stream = boto3.client("sagemaker", region_name="us-east-1"), Clock(), stream or io.StringIO()
    with Stubber(client) as stubber:
        for answer in answers:
            stubber.add_response("describe_training_job", answer, {"TrainingJobName": JOB})
        uri = following.follow(
            lambda: following.training_state(client, JOB), JOB, stream=stream, clock=clock, sleep=clock.sleep
        )
        stubber.assert_no_pending_responses()
    return uri, stream.getvalue(), clock.now


def test_a_job_is_followed_to_its_archive_with_a_line_a_change():
    uri, written, slept = follow_script(
        training_answer("InProgress", "Starting"),
        training_answer("InProgress", "Starting"),
        training_answer("InProgress", "Training"),
        training_answer(
            "Completed",
            "Completed",
            FinalMetricDataList=[{"MetricName": "test_accuracy", "Value": 0.975, "Timestamp": 0}],
        ),
    )
    assert uri == ARCHIVE_URI
    assert slept == 3 * following.POLL_SECONDS
    lines = written.splitlines()
    assert [line.split()[1] for line in lines] == ["InProgress", "InProgress", "Completed"]
    assert "Starting" in lines[0] and "Training" in lines[1] and "test_accuracy=0.9750" in lines[2]


def test_on_a_terminal_one_line_is_rewritten():
    _, written, _ = follow_script(
        training_answer("InProgress", "Starting"), training_answer("Completed", "Completed"), stream=Terminal()
    )
    assert written.count("\n") == 1 and written.endswith("\n")
    assert written.count("\r") == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (training_answer("Failed", "Failed", FailureReason="AlgorithmError: no pictures"), "no pictures"),
        (training_answer("Stopped", "MaxRuntimeExceeded"), "MaxRuntimeExceeded"),
    ],
)
def test_a_job_that_leaves_no_model_is_a_failure_with_its_reason(answer, reason):
    with pytest.raises(following.JobFailed, match=reason):
        follow_script(training_answer("InProgress", "Training"), training_answer("Stopping", "Stopping"), answer)


@pytest.mark.parametrize("field", ["BestTrainingJob", "OverallBestTrainingJob"])
def test_a_tuning_jobs_archive_is_the_best_jobs(field):
    """Of its own jobs, or with a warm start of its parents' too."""
    client, name = boto3.client("sagemaker", region_name="us-east-1"), "classifier-tune-0101000000"
    objective = {"MetricName": "validation_loss", "Value": 0.25}
    best = {
        "TrainingJobName": JOB,
        "TrainingJobArn": "arn:aws:sagemaker:us-east-1:111122223333:training-job/x",
        "CreationTime": 0,
        "TrainingJobStatus": "Completed",
        "TunedHyperParameters": {},
        "FinalHyperParameterTuningJobObjectiveMetric": objective,
    }
    answer = {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobArn": "arn:aws:sagemaker:us-east-1:111122223333:hyper-parameter-tuning-job/x",
        "HyperParameterTuningJobConfig": {"Strategy": "Bayesian", "ResourceLimits": {"MaxParallelTrainingJobs": 1}},
        "HyperParameterTuningJobStatus": "Completed",
        "CreationTime": 0,
        "TrainingJobStatusCounters": {"Completed": 4, "InProgress": 0},
        "ObjectiveStatusCounters": {},
        "BestTrainingJob": best | {"TrainingJobName": "classifier-second-best"},
        field: best,
    }
    with Stubber(client) as stubber:
        stubber.add_response("describe_hyper_parameter_tuning_job", answer, {"HyperParameterTuningJobName": name})
        expected = {"TrainingJobName": JOB}
        stubber.add_response("describe_training_job", training_answer("Completed", "Completed"), expected)
        state = following.tuning_state(client, name)
    assert state.archive_uri == ARCHIVE_URI
    assert "4 Completed" in state.detail and "validation_loss=0.2500" in state.detail


# --- from the call to the release --------------------------------------------------------------------------------


def sagemakers_tar(content: dict[str, bytes], seconds: int = 1_700_000_000) -> bytes:
    """A model folder as SageMaker tars it: with a folder entry, times and an owner."""
    buffer = io.BytesIO()
    manifest = {"files": {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}, "metrics": {}}
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        folder = tarfile.TarInfo("code")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name, data in {**content, "manifest.json": json.dumps(manifest).encode()}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.uid = len(data), seconds, 1000
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


CONTENT = {"model.json": b"{}", "model.onnx": b"onnx", "model.safetensors": b"weights", "code/inference.py": b"pass"}


@pytest.fixture
def job_name(monkeypatch) -> str:
    monkeypatch.setattr(request, "job_name", lambda name, kind, seconds: JOB)
    return JOB


def test_a_whole_submission_prints_the_release(settings_file, s3, folder, job_name, capsys):
    s3.put_object(Bucket=BUCKET, Key=f"training/{JOB}/output/model.tar.gz", Body=sagemakers_tar(CONTENT))
    arguments = ["--data", str(folder), "--hyperparameter", "epochs=2", "--spot", "--instances", "2"]
    assert submit.main(arguments) == 0
    job = boto3.client("sagemaker", region_name="us-east-1").describe_training_job(TrainingJobName=JOB)
    assert job["HyperParameters"]["epochs"] == "2"
    assert (job["EnableManagedSpotTraining"], job["ResourceConfig"]["InstanceCount"]) == (True, 2)
    assert job["CheckpointConfig"]["S3Uri"] == f"s3://{BUCKET}/training/{JOB}/checkpoints/"
    *_, key_line, uri = capsys.readouterr().out.splitlines()
    key = key_line.removeprefix("release_key=")
    assert re.fullmatch(r"releases/[0-9a-f]{64}/model\.tar\.gz", key)
    assert uri == f"s3://{BUCKET}/{key}"
    archive = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert hashlib.sha256(archive).hexdigest() == key.split("/")[1]
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert {name: tar.extractfile(name).read() for name in CONTENT} == CONTENT


def test_a_search_is_started_followed_and_released(settings_file, s3, capsys, monkeypatch):
    monkeypatch.setattr(request, "job_name", lambda name, kind, seconds: "classifier-tune-1")
    monkeypatch.setattr(submit, "follow", lambda describe, name: ARCHIVE_URI)
    s3.put_object(Bucket=BUCKET, Key=f"training/{JOB}/output/model.tar.gz", Body=sagemakers_tar(CONTENT))
    assert submit.main(["--dataset", "dogs", "--tune", "--trials", "4", "--warm-start", "classifier-tune-0"]) == 0
    sagemaker = boto3.client("sagemaker", region_name="us-east-1")
    job = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="classifier-tune-1")
    assert job["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 4
    assert "release_key=releases/" in capsys.readouterr().out


def test_equal_models_get_equal_releases(settings_file, s3, job_name, capsys):
    outputs = set()
    for seconds in (1_700_000_000, 1_800_000_000):
        s3.put_object(Bucket=BUCKET, Key=f"training/{JOB}/output/model.tar.gz", Body=sagemakers_tar(CONTENT, seconds))
        if not outputs:
            assert submit.main(["--dataset", "dogs"]) == 0
        else:
            assert submit.main(["--follow", JOB]) == 0
        outputs.add(capsys.readouterr().out)
    assert len(outputs) == 1


@pytest.mark.fault
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"no archive", id="no archive"),
        pytest.param(sagemakers_tar(CONTENT)[:200], id="cut short"),
        pytest.param(sagemakers_tar({**CONTENT, "../escape": b"x"}), id="a path that leads out"),
    ],
)
def test_an_output_that_is_no_archive_is_not_released(body, settings_file, s3, job_name, capsys):
    s3.put_object(Bucket=BUCKET, Key=f"training/{JOB}/output/model.tar.gz", Body=body)
    assert submit.main(["--dataset", "dogs"]) == 1
    written = capsys.readouterr()
    assert "no model archive" in written.err and "Traceback" not in written.err
    assert written.out == ""
    assert keys(s3, "releases/") == []


@pytest.mark.fault
def test_a_job_whose_archive_is_gone_is_named(settings_file, s3, job_name, capsys):
    assert submit.main(["--dataset", "dogs"]) == 1
    assert ARCHIVE_URI in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.fault
def test_a_refusal_of_aws_is_one_line_and_status_1(settings_file, s3, capsys):
    assert submit.main(["--follow", "no-such-job"]) == 1
    assert "DescribeTrainingJob" in one_line(capsys.readouterr().err)


def test_ctrl_c_says_how_to_follow_and_how_to_stop(settings_file, s3, job_name, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(submit, "follow", interrupt)
    assert submit.main(["--dataset", "dogs"]) == 130
    said = capsys.readouterr().err
    assert f"--follow {JOB}" in said
    assert f"stop-training-job --training-job-name {JOB}" in said
    jobs = boto3.client("sagemaker", region_name="us-east-1").list_training_jobs()["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in jobs] == [JOB]
