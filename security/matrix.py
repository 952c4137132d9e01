"""What each role must do and must not, row by row: tables/*.yaml, held against policies by the simulator."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from security.plan import ACCOUNT, KEY, NAME, REGION, Policy, listed
from security.simulator import Request, simulate

FOLDER = Path(__file__).with_name("tables")
BUCKET = f"arn:aws:s3:::{NAME}-{ACCOUNT}-{REGION}-artifacts"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/{NAME}"
ELSEWHERE = "eu-west-1"
KEY_ELSEWHERE = KEY.replace(REGION, ELSEWHERE)

NAMES = {
    "account": ACCOUNT,
    "bucket": BUCKET,
    "elsewhere": ELSEWHERE,
    "ec2": f"arn:aws:ec2:{REGION}:{ACCOUNT}",
    "key": KEY,
    "key_elsewhere": KEY_ELSEWHERE,
    "log_bucket": f"arn:aws:s3:::{NAME}-{ACCOUNT}-{REGION}-logs",
    "logs": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group",
    "name": NAME,
    "region": REGION,
    "role": ROLE,
    "sagemaker": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}",
}

INSIDE = {"hosting", "notebook", "trainer", "training"}  # whose subnets reach S3 through its VPC endpoint

ADMINISTRATOR = f"arn:aws:iam::{ACCOUNT}:user/administrator"
# The policy of a key that leaves it to IAM who uses it.
IAM_DECIDES: Policy = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*", "Resource": "*"}
    ],
}
EVERYTHING: Policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@dataclass(frozen=True)
class Row:
    """One request and its answer.

    Attributes:
        table: the file it stands in.
        principal: role or service that asks.
        context: condition keys of the request, beside TLS and, for a workload, the key's tag.
        reason: who makes the call, a file of this repository or an AWS service; or why it must be refused.
        page: AWS's page about the call, where an AWS service makes it.
        unchecked: why AWS's reference does not list the request as it is.
        unseen: why a whole demo does not make the call, where this project's own code does.
        widened: the asking role's own policy is everything, so that only its boundary is left.
        inside: whether the request comes from inside the network, and so passes the VPC endpoint of its service.
    """

    table: str
    principal: str
    action: str
    resource: str
    context: tuple[tuple[str, str], ...]
    allowed: bool
    reason: str
    page: str | None
    unchecked: str | None = None
    unseen: str | None = None
    widened: bool = False
    inside: bool = False

    def __str__(self) -> str:
        verb = "must" if self.allowed else "must not"
        when = f" when {dict(self.context)}" if self.context else ""
        return f"{self.table}: {self.principal.rpartition('/')[2]} {verb} {self.action} on {self.resource}{when}"


def read_rows(folder: Path = FOLDER) -> list[Row]:
    """Rows of all tables: every combination of what a table's row lists."""
    return [row for path in sorted(folder.glob("*.yaml")) for row in table_rows(path)]


def table_rows(path: Path) -> Iterator[Row]:
    """Rows of one table."""
    table = yaml.safe_load(path.read_text())
    for allowed, key in ((True, "must"), (False, "must not")):
        for entry in table.get(key, []):
            keys, values = list(entry.get("when", {})), [listed(v) for v in entry.get("when", {}).values()]
            principals = listed(entry.get("as", f"{ROLE}-{path.stem}"))
            contexts = [tuple(zip(keys, combination, strict=True)) for combination in itertools.product(*values)]
            for principal, action, resource, context in itertools.product(
                principals, listed(entry["do"]), listed(entry["to"]), contexts
            ):
                yield Row(
                    table=path.stem,
                    principal=ADMINISTRATOR if principal == "administrator" else principal.format(**NAMES),
                    action=action,
                    resource=resource.format(**NAMES),
                    context=tuple((key, value.format(**NAMES)) for key, value in context),
                    allowed=allowed,
                    reason=entry["by"] if allowed else entry["why"],
                    page=entry.get("page"),
                    unchecked=entry.get("unchecked"),
                    unseen=entry.get("unseen"),
                    widened=entry.get("widened", False),
                    inside=entry.get("inside", False),
                )


def boundary(names: Mapping[str, str] = NAMES) -> Policy:
    """The permissions boundary that this project offers for the workloads' roles; names: name, account and region."""
    return filled(json.loads(Path(__file__).with_name("boundary.json").read_text()), names)


def filled(value: Any, names: Mapping[str, str]) -> Any:
    """A table or document with what its placeholders stand for."""
    match value:
        case str():
            return value.format(**names)
        case list():
            return [filled(item, names) for item in value]
        case dict():
            return {filled(key, names): filled(item, names) for key, item in value.items()}
        case _:
            return value


def documents(policies: Mapping[str, Policy]) -> dict[str, Policy]:
    """The plan's policies beside those that the rows need: the boundary, an administrator's, another key's."""
    return {**policies, "boundary": boundary(), "everything": EVERYTHING, KEY_ELSEWHERE: IAM_DECIDES}


def request(row: Row, known: Mapping[str, Policy]) -> Request:
    """The row as a request, with the keys of the documents that decide it."""
    role = row.principal.removeprefix(f"{ROLE}-") if row.principal.startswith(f"{ROLE}-") else None
    identity = ["everything"] if row.principal == ADMINISTRATOR or row.widened else [f"role {role}"] if role else []
    limit = "deployer boundary" if role and role.startswith("deployer-") else "boundary"
    owner = f"trust {row.resource.removeprefix(f'{ROLE}-')}" if row.action == "sts:AssumeRole" else None
    door = f"endpoint {row.action.partition(':')[0]}"
    holders = [owner, row.resource, row.resource.partition("/")[0]]  # a role, a key or bucket, an object's bucket
    tagged = {"aws:ResourceTag/Project": NAME} if limit == "boundary" and row.resource == KEY else {}
    return Request(
        principal=row.principal,
        action=row.action,
        resource=row.resource,
        account=ACCOUNT,
        context={"aws:SecureTransport": "true", **tagged, **dict(row.context)},
        checked=row.unchecked is None,
        identity=identity,
        # The stack may have no boundary: what a role must not, its own policy refuses.
        boundary=[limit] if role and (row.allowed or row.widened) else None,
        resourcePolicy=next((holder for holder in holders if holder in known), None),
        endpoint=door if door in known and (row.inside or (row.allowed and role in INSIDE)) else None,
    )


def failures(rows: list[Row], policies: Mapping[str, Policy]) -> list[Row]:
    """The rows whose answer is another than they say. Raises as simulate() does."""
    known = documents(policies)
    answers = simulate(known, [request(row, known) for row in rows])
    return [row for row, answer in zip(rows, answers, strict=True) if answer != row.allowed]
