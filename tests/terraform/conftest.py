"""The stack in a local account without a data plane: Terraform's part alone, through python-terraform."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from python_terraform import IsFlagged, Terraform

from local.account import Account, running_account
from security.recording import ACCESS_KEYS

ROOT = Path(__file__).resolve().parents[2]
NAME = "test-classifier"


@dataclass
class Stack:
    """The root module, its state in a folder of the test's and its account on this machine."""

    account: Account
    terraform: Terraform
    image_uri: str | None = None

    def options(self, environment: str = "local", **overrides: Any) -> dict[str, Any]:
        """The options of every command. The overrides go into the last file: the last one wins, and python-terraform
        puts its own `var` first."""
        variables = Path(self.terraform.state).with_name("test.tfvars.json")
        settings = {"name": NAME, "image_uri": self.image_uri, "trainer_hyperparameters": {"epochs": "2"}}
        variables.write_text(json.dumps({**settings, **overrides}))
        environments = ROOT / "terraform" / "environments"
        files = [environments / "reference.tfvars", environments / f"{environment}.tfvars", variables]
        return {"var_file": [str(file) for file in files], "no_color": IsFlagged, "input": False}

    def apply(self, **overrides: Any) -> None:
        with self._recorded("apply"):
            status, _, err = self.terraform.apply(skip_plan=True, **self.options(**overrides))
        assert status == 0, err

    def plan_status(self, **overrides: Any) -> int:
        """0: nothing to do; 2: changes."""
        with self._recorded("plan"):
            status, _, err = self.terraform.plan(**self.options(**overrides))
        assert status in (0, 2), err
        return status

    def refused_plan(self, **overrides: Any) -> str:
        status, _, err = self.terraform.plan(**self.options(**overrides))
        assert status == 1, "the plan was not refused"
        return " ".join(err.replace("│", " ").split())

    def destroy(self, **overrides: Any) -> None:
        # Terraform 1.0 dropped -force, which python-terraform 0.10 still sends.
        with self._recorded("destroy"):
            status, _, err = self.terraform.destroy(force=None, auto_approve=IsFlagged, **self.options(**overrides))
        assert status == 0, err

    @contextlib.contextmanager
    def _recorded(self, phase: str) -> Iterator[None]:
        """The account has the phase's calls under an access key of its own."""
        key = "AWS_ACCESS_KEY_ID"
        os.environ |= {key: ACCESS_KEYS[phase]}  # python-terraform hands its own environment on
        try:
            yield
        finally:
            os.environ |= {key: self.account.environment[key]}

    def state(self) -> dict[str, Any]:
        return json.loads(Path(self.terraform.state).read_text())

    def output(self, name: str) -> Any:
        """A root output's value; Terraform keeps none that is null."""
        return self.state()["outputs"].get(name, {}).get("value")

    def resource(self, kind: str, module: str) -> dict[str, Any]:
        """Attributes of the only resource of a type in a module."""
        [resource] = [
            resource
            for resource in self.state()["resources"]
            if resource["type"] == kind and resource.get("module", "").startswith(module)
        ]
        [instance] = resource["instances"]
        return instance["attributes"]

    def upload_release(self, content: str) -> str:
        """Puts an archive into the artifact bucket and returns its release key; nobody here looks into it."""
        return self.upload_archive(model_archive(content))

    def upload_archive(self, archive: bytes) -> str:
        key = f"releases/{hashlib.sha256(archive).hexdigest()}/model.tar.gz"
        self.account.client("s3").put_object(Bucket=self.output("artifact_bucket"), Key=key, Body=archive)
        return key

    def build_image(self) -> str:
        """Has the hosting image built in the account, as a user without docker does, and deployed from now on."""
        archive = Path(self.terraform.state).with_name("model.tar.gz")
        archive.write_bytes(model_archive("to test the image with"))
        project = self.output("image_build_project")
        command = [sys.executable, "-m", "bundle.image", "--archive", str(archive), "--codebuild", project]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.image_uri = done.stdout.splitlines()[-1].removeprefix("image_uri=")
        return self.image_uri


def model_archive(content: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("labels.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


@contextlib.contextmanager
def opened(folder: Path, **options: Any) -> Iterator[Stack]:
    """The stack's tools, nothing applied yet; the options are running_account's."""
    with running_account(state_dir=folder / "account", **options) as account:
        before = dict(os.environ)
        os.environ |= account.environment  # python-terraform hands its own environment on
        try:
            terraform = Terraform(working_dir=str(ROOT / "terraform"), state=str(folder / "terraform.tfstate"))
            yield Stack(account, terraform)
        finally:
            os.environ.clear()
            os.environ |= before


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with opened(tmp_path_factory.mktemp("stack"), data_plane=False) as stack:
        yield stack


@pytest.fixture(scope="module")
def new_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """In an account with a data plane, and with the Lambda quota that many new accounts have."""
    with opened(tmp_path_factory.mktemp("new-account"), lambda_concurrency_quota=10) as stack:
        yield stack
