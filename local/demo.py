"""The main job, end to end, on a laptop: pictures, training, archive, stack, endpoint, Lambda, second release.

    python -m local.demo [--data DIR]

Every step is a command a user would run against a real account; what differs is the account's address in the
environment. Stops at the first failure. Results stand in build/demo/.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from local.account import Account, running_account
from local.box import boot
from local.digits import write_digits

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "demo"
TERRAFORM_DIR = ROOT / "terraform"
DIGITS_ACCURACY = 0.97
NAME = "demo-classifier"
DATASET = "demo"
METADATA_URL = "https://169.254.169.254/latest/meta-data/"  # what an attacker would have the Lambda fetch

BOX_RELEASED = 100  # the exit status of its unit; see ec2_userdata/README.md
BOX_SEED = "4"  # a model of its own: with the first one's seed the box would make the very same archive

# From scratch in a minute on two cores: no pretrained weights can be assumed, and mirrored digits are no digits.
DIGITS_HYPERPARAMETERS = {
    "backbone": "resnet18",
    "weights": "none",
    "image-size": "32",
    "epochs": "12",
    "horizontal-flip": "false",
}
PICTURES_HYPERPARAMETERS = {"backbone": "resnet18", "weights": "none", "image-size": "96", "epochs": "12"}


class DemoError(Exception):
    """A step did not do what it must; the message says which and where its log is."""


@dataclass
class Timeline:
    """The steps that ran, each with its seconds."""

    started: float = field(default_factory=time.monotonic)
    steps: list[tuple[str, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        print(f"\n[{time.monotonic() - self.started:6.1f} s] {len(self.steps) + 1}. {name}", flush=True)
        began = time.monotonic()
        yield
        self.steps.append((name, time.monotonic() - began))

    def table(self) -> str:
        rows = [*self.steps, ("total", time.monotonic() - self.started)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"  {name:<{width}}  {seconds:6.1f} s" for name, seconds in rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of class folders (default: scikit-learn's digits)")
    arguments = parser.parse_args(argv)
    if arguments.data is not None and not arguments.data.is_dir():
        parser.error(f"--data {arguments.data}: no such folder")
    try:
        _demo(arguments.data)
    except DemoError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; the local account is stopped, run it again", file=sys.stderr)
        return 130
    return 0


def _demo(data: Path | None) -> None:
    # The state describes an account that lives in memory: both begin anew together.
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    timeline = Timeline()
    hyperparameters = PICTURES_HYPERPARAMETERS if data else DIGITS_HYPERPARAMETERS
    archive = BUILD / "model.tar.gz"

    with timeline.step("train a classifier"):
        if data is None:
            data = BUILD / "digits"
            print(f"  {write_digits(data)} scanned digits written to {_relative(data)}")
            required = DIGITS_ACCURACY
        else:
            required = 0.0
        _train(data, hyperparameters, archive)
        metrics = json.loads((BUILD / "metrics.json").read_text())
        accuracy = metrics["test_accuracy"]
        print(f"  held-out accuracy: {accuracy:.4f} (validation: {metrics['validation_accuracy']:.4f})")
        if accuracy < required:
            raise DemoError(f"held-out accuracy {accuracy:.4f} is below {required}")

    with timeline.step("look into the archive"):
        _show_archive(archive)

    with contextlib.ExitStack() as stack:
        with timeline.step("start the local AWS account"):
            account = stack.enter_context(running_account(state_dir=ROOT / "build" / "local"))
            print(f"  {account.endpoint_url}")
            terraform = Terraform(account, hyperparameters=hyperparameters)

        with timeline.step("terraform apply: the stack"):
            terraform.apply()
        with timeline.step("build the hosting image in the account (which runs no build here: a stand-in)"):
            terraform.image_uri = _build_image(account, archive, terraform.output("image_build_project"))
        with timeline.step("publish the archive and deploy it"):
            release = _publish(account, archive, terraform.output("artifact_bucket"))
            terraform.apply(release)
            terraform.expect_no_changes(release)

        picture, label = _a_picture(data)
        with timeline.step("InvokeEndpoint by name"):
            _invoke_endpoint(account, terraform.output("endpoint_name"), picture, label)
        url = account.put_picture(picture.name, picture.read_bytes())
        with timeline.step("invoke the Lambda's alias"):
            first = _invoke_lambda(account, terraform, {"url": url})
            (BUILD / "answer.json").write_text(json.dumps(first, indent=2) + "\n")
            _invoke_lambda(account, terraform, {"url": url, "top_k": 3})
            print(f"  the picture's folder was: {label}")
        with timeline.step("a forbidden address raises the alarm's metric"):
            _invoke_lambda(account, terraform, {"url": METADATA_URL}, expected=403)
            _show_denied_fetches(account)

        with timeline.step("train as the EC2 box would"):
            second_release = _train_on_box(account, terraform, data)
        with timeline.step("deploy the second release in place"):
            terraform.apply(second_release)
            _invoke_lambda(account, terraform, {"url": url, "top_k": 3})
        with timeline.step("destroy everything"):
            terraform.destroy(second_release)

    print(f"\nWhat ran:\n{timeline.table()}\n\nLook into {_relative(BUILD)}/:")
    for name in ("answer.json", "metrics.json", "training-curve.png", "confusion-matrix.png", "report.html"):
        if not (BUILD / name).is_file():
            raise DemoError(f"{name} was not written")
        print(f"  {name}")


def _train(data: Path, hyperparameters: dict[str, str], archive: Path) -> None:
    flags = [part for name, value in hyperparameters.items() for part in (f"--{name}", value)]
    _run(
        [sys.executable, "model/train.py", "--train", str(data), "--model-dir", str(BUILD / "model"),
         "--output-data-dir", str(BUILD), "--archive", str(archive), *flags]
    )  # fmt: skip


def _show_archive(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            print(f"  {member.size:>12,}  {member.name}")
    manifest = json.loads((archive.parent / "manifest.json").read_text())
    print(f"  manifest: sha256 {manifest['archive']['sha256']}, commit {manifest['git_commit']}")


def _publish(account: Account, archive: Path, bucket: str) -> str:
    """Returns the release key that model/publish.py prints last."""
    command = [sys.executable, "model/publish.py", "--archive", str(archive), "--bucket", bucket]
    return _run(command, environment=account.environment)[-1]


def _build_image(account: Account, archive: Path, project: str) -> str:
    """Returns the image, by its digest, that the build in the account pushed."""
    command = [sys.executable, "-m", "bundle.image", "--archive", str(archive), "--codebuild", project]
    return _run(command, environment=account.environment)[-1].removeprefix("image_uri=")


def _a_picture(data: Path) -> tuple[Path, str]:
    """A picture and the class folder it lies in."""
    picture = next(path for path in sorted(data.rglob("*")) if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
    return picture, picture.parent.name


def _invoke_endpoint(account: Account, endpoint: str, picture: Path, label: str) -> None:
    response = account.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint,
        ContentType="image/png" if picture.suffix.lower() == ".png" else "image/jpeg",
        Accept="application/json",
        Body=picture.read_bytes(),
    )
    logits = json.loads(response["Body"].read())
    print(f"  {picture.name} of class {label}: logits {json.dumps(logits)[:160]}")


def _invoke_lambda(account: Account, terraform: Terraform, event: dict, *, expected: int = 200) -> dict:
    """Returns the Lambda's whole answer, after checking its status code."""
    response = account.client("lambda").invoke(
        FunctionName=terraform.output("function_name"),
        Qualifier=terraform.output("function_alias"),
        Payload=json.dumps(event).encode(),
    )
    answer = json.loads(response["Payload"].read())
    print(f"  {json.dumps(event)}\n  -> {json.dumps(answer)}")
    if response.get("FunctionError") or answer.get("statusCode") != expected:
        raise DemoError(f"the Lambda did not answer {expected}; its log group says why")
    return answer


def _show_denied_fetches(account: Account) -> None:
    now = datetime.now(UTC)
    datapoints = account.client("cloudwatch").get_metric_statistics(
        Namespace=NAME,
        MetricName="DeniedFetches",
        StartTime=now - timedelta(minutes=10),
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=["Sum"],
    )["Datapoints"]
    denied = sum(point["Sum"] for point in datapoints)
    print(f"  metric {NAME}/DeniedFetches: {denied:.0f}")
    if denied != 1:
        raise DemoError("the log line of the refused fetch did not raise its metric by one")


def _train_on_box(account: Account, terraform: Terraform, data: Path) -> str:
    """Sets the group to one instance, boots it as EC2 would, and returns the key of the release it uploaded."""
    settings = BUILD / "submission.json"
    settings.write_text(json.dumps(terraform.output("submission")))
    _run(
        [sys.executable, "model/submit.py", "--settings", str(settings), "--data", str(data), "--dataset", DATASET,
         "--upload-only"],
        environment=account.environment_of("notebook"),
    )  # fmt: skip
    group = terraform.output("autoscaling_group_name")
    autoscaling = account.client("autoscaling")
    autoscaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=1)
    [instance] = _group(autoscaling, group)["Instances"]
    user_data = base64.b64decode(terraform.launch_template_user_data()).decode()
    print(f"  {instance['InstanceId']}: user-data of {len(user_data.encode()):,} bytes")
    environment = account.environment_of("trainer")
    status = boot(user_data, root=BUILD / "box", environment=environment, instance_id=instance["InstanceId"])
    log = BUILD / "box" / "opt" / "trainer" / "trainer.log"
    print("".join(f"    {line}\n" for line in log.read_text().splitlines()), end="")
    if status != BOX_RELEASED:
        raise DemoError(f"the box's unit ended with status {status}; its log is {_relative(log)}")

    bucket = terraform.output("artifact_bucket")
    objects = account.client("s3").list_objects_v2(Bucket=bucket, Prefix="releases/")["Contents"]
    manifests = [item for item in objects if item["Key"].endswith("manifest.json")]
    newest = max(manifests, key=lambda item: item["LastModified"])
    folder = newest["Key"].removesuffix("manifest.json")
    for item in objects:
        if item["Key"].startswith(folder):
            print(f"  s3://{bucket}/{item['Key']}  {item['Size']:,} bytes")
    left = _group(autoscaling, group)
    print(f"  the box took itself away: desired capacity {left['DesiredCapacity']}, {len(left['Instances'])} instances")
    if left["DesiredCapacity"] != 0 or left["Instances"]:
        raise DemoError("the box did not take itself away")
    return folder + "model.tar.gz"


def _group(autoscaling, name: str) -> dict:
    return autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]


class Terraform:
    """The root module against the local account, its state in build/demo/ and never beside a real account's."""

    def __init__(self, account: Account, *, hyperparameters: dict[str, str]) -> None:
        self.account = account
        self.state = BUILD / "terraform.tfstate"
        self.image_uri: str | None = None
        variables = BUILD / "demo.tfvars.json"
        variables.write_text(
            json.dumps(
                {
                    "name": NAME,
                    "trainer_dataset": DATASET,
                    "trainer_hyperparameters": {**hyperparameters, "seed": BOX_SEED},
                }
            )
        )
        files = ("environments/reference.tfvars", "environments/local.tfvars", str(variables))
        self.variables = [f"-var-file={file}" for file in files]

    def apply(self, release_key: str | None = None) -> None:
        self._terraform("apply", "-auto-approve", f"-state={self.state}", *self._variables(release_key))

    def destroy(self, release_key: str) -> None:
        self._terraform("destroy", "-auto-approve", f"-state={self.state}", *self._variables(release_key))

    def expect_no_changes(self, release_key: str) -> None:
        self._terraform("plan", "-detailed-exitcode", f"-state={self.state}", *self._variables(release_key))

    def output(self, name: str):
        """The value of a root output."""
        return json.loads(self.state.read_text())["outputs"][name]["value"]

    def launch_template_user_data(self) -> str:
        """The trainer's user-data as the state holds it: base64."""
        resources = json.loads(self.state.read_text())["resources"]
        [template] = [resource for resource in resources if resource["type"] == "aws_launch_template"]
        return template["instances"][0]["attributes"]["user_data"]

    def _variables(self, release_key: str | None) -> list[str]:
        chosen = {"image_uri": self.image_uri, "release_key": release_key}
        return [*self.variables, *(f"-var={name}={value}" for name, value in chosen.items() if value)]

    def _terraform(self, *arguments: str) -> None:
        _run(
            ["terraform", "-chdir=terraform", arguments[0], "-input=false", "-no-color", *arguments[1:]],
            environment=self.account.environment_of(f"deployer-{arguments[0]}")
            | {"TF_IN_AUTOMATION": "1", "NO_COLOR": "1"},
            log=BUILD / "terraform.log",
        )


def _run(command: list[str], *, environment: dict[str, str] | None = None, log: Path | None = None) -> list[str]:
    """Runs a command of the project and returns its stdout lines; they are shown, or logged with their last line shown.

    Raises DemoError when it fails, with the end of what it said.
    """
    shown = [_relative(Path(part)) if part.startswith(str(ROOT)) else part for part in command]
    print(f"  $ {' '.join(shown)}", flush=True)
    lines: list[str] = []
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("a")) if log else None
        process = stack.enter_context(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if sink else None,
                text=True,
            )
        )
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if sink:
                sink.write(line)
            else:
                print(f"    {line}", end="", flush=True)
    if sink and lines:
        summary = next((line for line in reversed(lines) if line.startswith(("Apply", "Destroy", "No changes"))), "")
        print(f"    {summary}")
    if process.returncode != 0:
        end = "\n".join(lines[-30:]) if sink else ""
        raise DemoError(f"`{' '.join(shown[:3])}` ended with status {process.returncode}\n{end}")
    return lines


def _relative(path: Path) -> str:
    return os.path.relpath(path, ROOT)


if __name__ == "__main__":
    sys.exit(main())
