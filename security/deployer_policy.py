"""`python -m security deployer-policy`: the derived policies as files that IAM takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from bundle.archives import write_if_changed
from security.deployer import (
    MANAGED_POLICY_CHARACTERS,
    boundary,
    characters,
    grants,
    policy,
    read_recorded,
    read_table,
    split,
)
from security.matrix import boundary as workload_boundary
from security.plan import Policy
from security.recording import PHASES


def names(account: str, name: str, region: str, boundary_arn: str | None, state: str | None) -> dict[str, str]:
    """What the table's placeholders stand for. Raises ValueError for a value that AWS, or the stack, would not take.

    state: where the S3 backend keeps Terraform's state, s3://bucket/key.
    """
    if not re.fullmatch(r"\d{12}", account):
        raise ValueError(f"--account {account}: give the twelve digits of the AWS account")
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,21}[a-z0-9]", name):
        raise ValueError(f"--name {name}: give the stack's name, 3 to 23 lower-case letters, digits and hyphens")
    # Of the partition that the table's ARNs are of.
    if not re.fullmatch(r"(?!cn-|us-gov-|us-iso|eu-isoe-|eusc-)[a-z]{2}(-[a-z]+)+-\d", region):
        raise ValueError(f"--region {region}: give an AWS region of the partition aws, such as us-east-1")
    arn = boundary_arn or f"arn:aws:iam::{account}:policy/{name}-workload-boundary"
    if not re.fullmatch(rf"arn:aws:iam::{account}:policy/[\w+=,.@/-]+", arn):
        raise ValueError(f"--boundary-arn {arn}: give the ARN of a managed policy of account {account}")
    found = {"account": account, "name": name, "region": region, "boundary": arn}
    if state is None:
        return found
    place = re.fullmatch(r"s3://([a-z0-9.-]{3,63})/([\w!.'()/-]+)", state)
    if not place:
        raise ValueError(f"--state {state}: give s3://bucket/key, as the S3 backend has them")
    return {**found, "state_bucket": place[1], "state_key": place[2]}


def deployer_documents(filled: Mapping[str, str]) -> dict[str, Policy]:
    """Every document by its file's stem."""
    table, recorded = read_table(filled), read_recorded()
    granted = {phase: grants(phase, recorded[phase], table) for phase in PHASES}
    parts = {
        f"{phase}-{number}": part
        for phase in PHASES
        for number, part in enumerate(split(policy(granted[phase])), start=1)
    }
    own = boundary(set().union(*granted.values()))
    documents = {**parts, "deployer-boundary": own, "workload-boundary": workload_boundary(filled)}
    for stem, document in documents.items():
        if characters(document) > MANAGED_POLICY_CHARACTERS:
            raise ValueError(f"{stem} has {characters(document)} characters, IAM takes {MANAGED_POLICY_CHARACTERS}")
    return documents


def report(folder: Path, filled: Mapping[str, str]) -> list[str]:
    """Writes the documents, prints what they are; returns nothing that fails. Raises as names() and grants() do."""
    documents = deployer_documents(filled)
    for stem, document in documents.items():
        try:
            write_if_changed(folder / f"{stem}.json", f"{json.dumps(document, indent=2)}\n".encode())
        except OSError as error:
            raise ValueError(f"--output {folder}: {error.strerror}: give a folder that can be written to") from error
        actions = sum(len(one["Action"]) if isinstance(one["Action"], list) else 1 for one in document["Statement"])
        count = f"{len(document['Statement']):3} statements, {actions:3} actions"
        print(f"{folder / stem}.json: {count}, {characters(document):,} of {MANAGED_POLICY_CHARACTERS:,} characters")
    for left in folder.glob("*.json"):  # of a run that needed more files
        if left.stem not in documents:
            left.unlink()
    print(f"workload-boundary.json is for {filled['boundary']}, to be given as permissions_boundary_arn")
    return []
