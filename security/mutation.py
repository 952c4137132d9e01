"""Policies changed on purpose, and whether a row of the matrix notices.

Where something is taken away and no row notices, nothing shows that it is needed; where something is widened and no row
notices, nothing shows that it is bounded.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from security.matrix import Row, documents, request
from security.plan import Policy, listed
from security.simulator import Request, simulate


@dataclass(frozen=True)
class Mutant:
    """A policy with one change.

    Attributes:
        document: key of the policy.
        change: to which statement, by Sid or position, and what.
        whole: whether it is the whole statement.
        actions: patterns of the actions that it concerns; no other request can be answered otherwise.
    """

    document: str
    change: str
    whole: bool
    actions: list[str]
    policy: Policy = field(repr=False)

    def __str__(self) -> str:
        return f"{self.document} {self.change}"


def mutants(policies: Mapping[str, Policy]) -> Iterator[Mutant]:
    """Every policy without each statement, and without each part of one: action, resource, principal, condition."""
    for document, policy in policies.items():
        for name, statement in _named(policy):
            actions = listed(statement["Action"])
            yield Mutant(document, f"without {name}", True, actions, _changed(policy, statement, []))
            for part, gone, smaller in _smaller(statement):
                concerned = [gone] if part == "Action" else actions
                change = f"without {name}'s {part} {gone}"
                yield Mutant(document, change, False, concerned, _changed(policy, statement, [smaller]))


def _named(policy: Policy) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each statement with its Sid, or its position where it has none."""
    for number, statement in enumerate(policy["Statement"], start=1):
        yield statement.get("Sid", f"statement {number}"), statement


def _changed(policy: Policy, statement: dict[str, Any], instead: list[dict[str, Any]]) -> Policy:
    """The policy with other statements in a statement's place."""
    statements = [one for other in policy["Statement"] for one in (instead if other is statement else [other])]
    return {**policy, "Statement": statements}


def _smaller(statement: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(kind of part, the part that is gone, the statement without it)."""
    for key in ("Action", "Resource"):
        for value, rest in _without_one(statement.get(key)):
            yield key, value, {**statement, key: rest}
    principal = statement.get("Principal", {})
    for kind, principals in principal.items() if principal != "*" else []:
        for value, rest in _without_one(principals):
            yield "Principal", value, {**statement, "Principal": {kind: rest}}
    for operator, keys in statement.get("Condition", {}).items():
        for key, values in keys.items():
            condition = copy.deepcopy(statement["Condition"])
            del condition[operator][key]
            kept = {other: left for other, left in condition.items() if left}
            yield "Condition", key, {**statement, "Condition": kept}
            for value, rest in _without_one(values):
                condition = copy.deepcopy(statement["Condition"])
                condition[operator][key] = rest
                yield "Condition", f"{key} {value}", {**statement, "Condition": condition}


def _without_one(values: Any) -> Iterator[tuple[str, list[str]]]:
    """Nothing for a single value: without it there would be no statement."""
    if isinstance(values, list) and len(values) > 1:
        for value in values:
            yield value, [other for other in values if other != value]


def widened(policies: Mapping[str, Policy]) -> Iterator[Mutant]:
    """Every policy, each Allow extended to all resources, to all actions of its services, or to all principals.

    A statement with a condition keeps its actions: the condition's key is mostly one that no other action has.
    """
    for document, policy in policies.items():
        for name, statement in _named(policy):
            for part, value, concerned in _wider(document, statement) if statement["Effect"] == "Allow" else []:
                change = f"with {name}'s {part} {', '.join(listed(value))}"
                wider = _changed(policy, statement, [{**statement, part: value}])
                yield Mutant(document, change, False, concerned, wider)


def _wider(document: str, statement: dict[str, Any]) -> Iterator[tuple[str, Any, list[str]]]:
    """(the part that grows, what it becomes, the actions that this concerns)."""
    actions = listed(statement["Action"])
    services = sorted({f"{action.partition(':')[0]}:*" for action in actions})
    # What has a policy of its own is all that this is about, and what may be done to a role is to take it.
    if document.startswith(("arn:", "trust ")):
        yield "Principal", "*", actions
    elif statement["Resource"] != "*":
        yield "Resource", "*", actions
    if "Condition" not in statement and not document.startswith("trust ") and actions != services:
        yield "Action", services, services


def survivors(rows: list[Row], policies: Mapping[str, Policy], tried: list[Mutant]) -> list[Mutant]:
    """The mutants that no row notices: every row that held before still does. Raises as simulate() does."""
    known = documents(policies)
    asking: dict[str | None, list[tuple[Row, Request]]] = defaultdict(list)
    for row in rows:
        asked = request(row, known)
        for document in {*asked["identity"], *(asked["boundary"] or []), asked["resourcePolicy"], asked["endpoint"]}:
            asking[document].append((row, asked))
    concerned = [
        [pair for pair in asking[mutant.document] if any(fnmatchcase(pair[0].action, one) for one in mutant.actions)]
        for mutant in tried
    ]
    alive, begin = list(range(len(tried))), 0
    # Most are noticed by one of the first rows.
    for end in (8, 64, None):
        changed, requests, origins = {}, [], []
        for number in alive:
            key = f"mutant {number}"
            changed[key] = tried[number].policy
            for row, asked in concerned[number][begin:end]:
                requests.append(_swapped(asked, tried[number].document, key))
                origins.append((number, row.allowed))
        answers = simulate({**known, **changed}, requests)
        caught = {number for (number, allowed), answer in zip(origins, answers, strict=True) if answer != allowed}
        alive, begin = [number for number in alive if number not in caught], end
    return [tried[number] for number in alive]


def _swapped(asked: Request, document: str, key: str) -> Request:
    """The request with another document in a document's place."""
    swap = {document: key}
    return {
        **asked,
        "identity": [swap.get(name, name) for name in asked["identity"]],
        "boundary": asked["boundary"] and [swap.get(name, name) for name in asked["boundary"]],
        "resourcePolicy": swap.get(asked["resourcePolicy"], asked["resourcePolicy"]),
        "endpoint": swap.get(asked["endpoint"], asked["endpoint"]),
    }
