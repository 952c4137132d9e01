"""The least that whoever runs Terraform needs on AWS to plan, apply and destroy the stack: policies, derived.

What is granted was recorded in a real run (tables/deployer/recorded.yaml) or stands, with its reason, in
tables/deployer/grants.yaml, which also says on what.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from policy_sentry.querying.actions import get_action_data

from security import recording
from security.matrix import filled
from security.plan import Policy, listed
from security.recording import PHASES

FOLDER = Path(__file__).with_name("tables") / "deployer"
MANAGED_POLICY_CHARACTERS = (
    6144  # without white space: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
)

PROJECT, NEW_PROJECT = "aws:ResourceTag/Project", "aws:RequestTag/Project"
GLOBAL = {"iam", "route53", "sts"}  # services without a region

Condition = tuple[tuple[str, str, tuple[str, ...]], ...]  # (operator, key, values)


@dataclass(frozen=True)
class Grant:
    """One action on resources of one pattern."""

    action: str
    resource: str
    condition: Condition = ()


def read_recorded(path: Path = recording.RECORDED) -> dict[str, set[str]]:
    """IAM actions by phase, as recorded. Both applying and destroying begin with what planning does."""
    recorded = recording.read(path)
    return {phase: recorded[phase] | recorded["plan"] for phase in PHASES}


def read_table(names: Mapping[str, str], path: Path = FOLDER / "grants.yaml") -> dict[str, Any]:
    """The reviewed table with its names filled in; what needs a name that is not there is left out.

    names: name, account, region, boundary (an ARN) and, with a state in S3, state_bucket and state_key.
    """
    table = yaml.safe_load(path.read_text())
    table["also"] = [entry for entry in table["also"] if "state_bucket" in names or "{state_" not in str(entry)]
    return filled(table, names) | {"name": names["name"], "region": names["region"]}


def grants(phase: str, recorded: Iterable[str], table: Mapping[str, Any]) -> set[Grant]:
    """Everything that a phase is granted. Raises ValueError for an action that no resource of the stack is of."""
    also = [entry for entry in table["also"] if phase in entry["in"]]
    derived = {action for action in recorded if action not in table["underived"]}
    derived |= {action for entry in also if "to" not in entry for action in listed(entry["do"])}
    found = {grant for action in derived for grant in _derived(action, table)}
    if unknown := sorted(derived - {grant.action for grant in found}):
        raise ValueError(
            f"{', '.join(unknown)}: grants.yaml has no resource of a kind that AWS's reference lists for it"
        )
    for entry in also:
        for resource in listed(entry.get("to", [])):
            for action in listed(entry["do"]):
                found.add(Grant(action, resource, _condition(entry.get("when", {}))))
    return found


def _condition(when: Mapping[str, Mapping[str, Any]]) -> Condition:
    return tuple(
        (operator, key, tuple(listed(values))) for operator, keys in when.items() for key, values in keys.items()
    )


def _derived(action: str, table: Mapping[str, Any]) -> Iterator[Grant]:
    forms = reference(action)
    made = table["creates"].get(action)
    condition = next((_condition(one["when"]) for one in table["conditions"] if action in listed(one["do"])), ())
    if forms == {"*"}:
        bound = [("StringEquals", "aws:RequestedRegion", (table["region"],))]
        bound += [("StringEquals", NEW_PROJECT, (table["name"],))] if made else []
        yield Grant(action, "*", tuple(bound))
        return
    for form in forms:
        for resource, only in table["named"].items():
            if (only is None or action in only) and _is_of(resource, form):
                yield Grant(action, resource, condition)
        for resource in table["tagged"]:
            if _is_of(resource, form):
                key = NEW_PROJECT if f":{made}/" in resource else PROJECT
                yield Grant(action, resource, (("StringEquals", key, (table["name"],)),))


@cache
def reference(action: str) -> set[str]:
    """Forms of the resources that an action is allowed on, as AWS's reference lists them; "*" where it lists none.

    Raises ValueError for an action that AWS does not have.
    """
    service, _, name = action.partition(":")
    data = get_action_data(service, name)
    if not data:
        raise ValueError(f"{action}: AWS's reference has no such action")
    forms = {entry["resource_arn_format"] for entry in data[service]}
    return forms - {"*"} or forms


def _is_of(resource: str, form: str) -> bool:
    """Whether a pattern of the stack's is of a form such as arn:${Partition}:sqs:${Region}:${Account}:${QueueName}."""
    variable = "[^/]+" if ":s3:" in form else ".+"  # a bucket is no object
    parts = form.replace("${Partition}", "aws").split(":", 5)
    place = [re.escape(part) if "$" not in part else "[^:]*" for part in parts[:5]]
    last = re.sub(r"\\\$\\\{\w+\\\}", lambda _: variable, re.escape(parts[5]))
    if ":s3:" in form and "ObjectName" in form:
        last = "[^/]+/.+"
    return re.fullmatch(":".join([*place, last]), resource) is not None


def policy(granted: Iterable[Grant]) -> Policy:
    """Grants as one policy: together stand the actions of a service that are granted on the same, under the same."""
    resources: dict[tuple[str, Condition], set[str]] = defaultdict(set)
    for grant in granted:
        resources[grant.action, grant.condition].add(grant.resource)
    actions: dict[tuple[str, Condition, tuple[str, ...]], list[str]] = defaultdict(list)
    for (action, condition), on in sorted(resources.items()):
        service = "any" if on == {"*"} else action.partition(":")[0]
        actions[service, condition, tuple(sorted(on))].append(action)
    numbers: Counter[str] = Counter()
    statements = []
    for (service, condition, on), together in sorted(actions.items()):
        name = "".join(part.title() for part in service.split("-"))
        numbers[name] += 1
        statements.append({"Sid": f"{name}{numbers[name]}", **_statement(together, on, condition)})
    return _document(statements)


def _statement(actions: Sequence[str], resources: Sequence[str], condition: Condition) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": _short(actions), "Resource": _short(resources)}
    for operator, key, values in condition:
        statement.setdefault("Condition", {}).setdefault(operator, {})[key] = _short(values)
    return statement


def _short(values: Sequence[str]) -> Any:
    """IAM writes a list of one as the one."""
    return values[0] if len(values) == 1 else list(values)


def boundary(granted: Iterable[Grant]) -> Policy:
    """The deployer's own permissions boundary: of IAM exactly what it is granted, of other services what there is.

    However wide its policies become: it makes and changes roles under the workloads' boundary alone, and changes
    neither its own role nor a boundary.
    """
    everything = set(granted)
    guarded = {grant for grant in everything if grant.action.partition(":")[0] in GLOBAL}
    services = sorted({f"{grant.action.partition(':')[0]}:*" for grant in everything - guarded})
    open_statement = {"Sid": "Services", **_statement(services, ["*"], ())}
    return _document([open_statement, *policy(guarded)["Statement"]])


def split(whole: Policy, limit: int = MANAGED_POLICY_CHARACTERS) -> list[Policy]:
    """The policy as managed policies that IAM takes: each at most `limit` characters without white space."""
    parts: list[Policy] = []
    for statement in _of_size(whole["Statement"], limit):
        if parts and characters(_document([*parts[-1]["Statement"], statement])) <= limit:
            parts[-1]["Statement"].append(statement)
        else:
            parts.append(_document([statement]))
    return parts


def _of_size(statements: Iterable[dict[str, Any]], limit: int) -> Iterator[dict[str, Any]]:
    for statement in statements:
        actions = listed(statement["Action"])
        if len(actions) > 1 and characters(_document([statement])) > limit:
            halves = actions[: len(actions) // 2], actions[len(actions) // 2 :]
            yield from _of_size(
                [
                    {**statement, "Sid": f"{statement['Sid']}{part}", "Action": _short(half)}
                    for part, half in zip("ab", halves, strict=True)
                ],
                limit,
            )
        else:
            yield statement


def _document(statements: list[dict[str, Any]]) -> Policy:
    return {"Version": "2012-10-17", "Statement": statements}


def characters(document: Policy) -> int:
    """What IAM counts: no white space."""
    return len(json.dumps(document, separators=(",", ":")))
