"""The hosting image, built in the account: CodeBuild takes the source archive from the stack's bucket."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bundle.errors import Failed, Mistake
from bundle.registry import Repository

POLL_SECONDS = 5


def build_in_account(
    session: Any, project_name: str, tag: str, source: Callable[[], bytes], report: Callable[[str], None]
) -> str:
    """Builds the image of a tag, unless the repository has it, and returns its URI by digest.

    `session` is boto3's; `source` makes the source archive; `report` is told how the build goes on. Bucket, key and
    repository are the project's own. Raises Mistake where there is no such project, Failed where the build fails.
    """
    codebuild = session.client("codebuild")
    projects = codebuild.batch_get_projects(names=[project_name])["projects"]
    if not projects:
        remedy = "take its name from terraform output image_build_project"
        raise Mistake(f"--codebuild {project_name}: no such project in {codebuild.meta.region_name}: {remedy}")
    variables = {entry["name"]: entry["value"] for entry in projects[0]["environment"]["environmentVariables"]}
    repository = Repository.parse(variables["REPOSITORY_URL"])
    ecr = session.client("ecr")
    if uri := repository.image_uri(ecr, tag):
        report(f"{tag} has been built before")
        return uri

    bucket, _, key = projects[0]["source"]["location"].partition("/")
    # For a source in S3, the source's version is that of the object: two builds at a time do not mix.
    version = session.client("s3").put_object(Bucket=bucket, Key=key, Body=source())["VersionId"]
    report(f"s3://{bucket}/{key} version {version}")
    build = codebuild.start_build(projectName=project_name, sourceVersion=version)["build"]
    try:
        follow(codebuild, build["id"], report)
    except KeyboardInterrupt:
        report(f"build {build['id']} goes on; the same command, when it is done, names its image")
        raise
    if uri := repository.image_uri(ecr, tag):
        return uri
    raise Failed(f"build {build['id']} succeeded, but {repository.name} has no image tagged {tag}")


def follow(codebuild: Any, build_id: str, report: Callable[[str], None]) -> None:
    """Waits for a build's end; raises Failed unless it succeeded."""
    phase = None
    while True:
        [build] = codebuild.batch_get_builds(ids=[build_id])["builds"]
        if build.get("currentPhase") != phase:
            phase = build.get("currentPhase")
            report(f"build {build_id}: {phase}")
        if build["buildStatus"] == "SUCCEEDED":
            return
        if build["buildStatus"] != "IN_PROGRESS":
            log = build.get("logs", {}).get("deepLink", "its log group")
            raise Failed(f"build {build_id}: {build['buildStatus']}{_reason(build)}; its log: {log}")
        time.sleep(POLL_SECONDS)


def _reason(build: dict[str, Any]) -> str:
    """What the failed phase says of itself, as " in PHASE: message"."""
    for phase in build.get("phases", []):
        if phase.get("phaseStatus") not in (None, "SUCCEEDED"):
            said = "; ".join(context["message"] for context in phase.get("contexts", []) if context.get("message"))
            return f" in {phase['phaseType']}: {said}"
    return ""
