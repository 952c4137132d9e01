"""The deployer's policies held against what it must and must not, as every other role's are.

It must do what it is granted, under the conditions of the grant; it must not without one of them, on what is somebody
else's, or in a phase that has no need of it. What else it must not stands in tables/deployer/refused.yaml.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from local.account import REGION
from security.deployer import (
    FOLDER,
    GLOBAL,
    Condition,
    Grant,
    boundary,
    grants,
    policy,
    read_recorded,
    read_table,
)
from security.lint import IN_ANOTHER, Explained, escalations, findings, unexplained
from security.matrix import ELSEWHERE, IAM_DECIDES, ROLE, Row, failures, table_rows
from security.mutation import mutants, survivors, widened
from security.plan import ACCOUNT, BOUNDARY, KEY, NAME, Policy
from security.recording import PHASES

BY = "Terraform"
FOREIGN = "somebody-elses"
# Forms that the simulator does not know from AWS's reference.
UNCHECKED = {
    f":function:{NAME}:*": "it cannot tell a function's alias from its version",
    "::parameter/": "AWS's public parameters are of no account",
}
EXPLAINED = (
    Explained(
        "RESOURCE_MISMATCH",
        "role deployer-",
        "ssm:GetParameter",
        "AWS's public parameters are of no account",
    ),
    Explained(
        "RESOURCE_MISMATCH",
        "role deployer-",
        IN_ANOTHER,
        "one call is on resources of several kinds, and each kind has a condition of its own",
    ),
    Explained(
        "RESOURCE_POLICY_PRIVILEGE_ESCALATION",
        "role deployer-apply",
        f"on arn:aws:s3:::{NAME}-",
        "who makes a bucket decides who may use it: the deployer is trusted with what the stack's buckets hold",
    ),
    Explained("RESOURCE_STAR", "deployer boundary", "", "a boundary grants nothing"),
)
NAMES = {
    "account": ACCOUNT,
    "boundary": BOUNDARY,
    "name": NAME,
    "region": REGION,
    "state_bucket": "terraform-state",
    "state_key": "pictures.tfstate",
}


def granted() -> dict[str, set[Grant]]:
    """What each phase is granted, of the stack that the matrix is about."""
    table, recorded = read_table(NAMES), read_recorded()
    return {phase: grants(phase, recorded[phase], table) for phase in PHASES}


def deployer_policies(phases: Mapping[str, set[Grant]]) -> dict[str, Policy]:
    """The policies by what they hold for, as matrix.request() asks for them."""
    found = {f"role deployer-{phase}": policy(allowed) for phase, allowed in phases.items()}
    return {**found, "deployer boundary": boundary(set().union(*phases.values()))}


def deployer_rows(phases: Mapping[str, set[Grant]]) -> list[Row]:
    """Every row once."""
    return list(dict.fromkeys([*_rows(phases), *table_rows(FOLDER / "refused.yaml")]))


def _rows(phases: Mapping[str, set[Grant]]) -> Iterator[Row]:
    every = set().union(*phases.values())
    for phase, allowed in phases.items():
        for grant in sorted(allowed, key=str):
            on = _example(grant.resource)
            for context in _contexts(grant.condition):
                yield _row(phase, grant, on, context, True)
            for other, context, why in _foreign(grant):
                yield _row(phase, grant, other, context, False, why)
                if grant.action.partition(":")[0] in GLOBAL:
                    yield _row(phase, grant, other, context, False, why, widened=True)
        taken = {grant.action for grant in allowed}
        for grant in sorted(every, key=str):
            if grant.action not in taken:
                why = f"no part of terraform {phase}"
                yield _row(phase, grant, _example(grant.resource), next(_contexts(grant.condition)), False, why)


def _row(
    phase: str,
    grant: Grant,
    on: str,
    context: Mapping[str, str],
    allowed: bool,
    why: str = BY,
    *,
    widened: bool = False,
) -> Row:
    principal = f"{ROLE}-deployer-{phase}"
    seen = [reason for form, reason in UNCHECKED.items() if form in grant.resource]
    return Row(
        table="deployer",
        principal=principal,
        action=grant.action,
        resource=on,
        context=tuple(sorted(context.items())),
        allowed=allowed,
        reason=why,
        page=None,
        unchecked=seen[0] if seen else None,
        widened=widened,
    )


def _example(resource: str) -> str:
    if ":key/" in resource:
        return KEY
    return resource if resource == "*" else resource.replace(f"{ACCOUNT}:*", f"{ACCOUNT}:vpc/*").replace("*", "0123")


def _contexts(condition: Condition) -> Iterator[dict[str, str]]:
    """Every way to meet the condition."""
    keys = [(key, values) for operator, key, values in condition if operator != "Null"]
    for chosen in itertools.product(*(values for _, values in keys)):
        yield {key: value.replace("*", "0123") for (key, _), value in zip(keys, chosen, strict=True)}


def _foreign(grant: Grant) -> Iterator[tuple[str, dict[str, str], str]]:
    """Requests a little beside the grant: (resource, context, why it must be refused)."""
    on, met = _example(grant.resource), next(_contexts(grant.condition))
    if NAME in on:
        yield on.replace(NAME, FOREIGN), met, "another stack's"
    elif f":{REGION}:" in on:
        yield on.replace(REGION, ELSEWHERE), met, "another region"
    for operator, key, _ in grant.condition:
        if operator != "Null":
            yield on, {name: value for name, value in met.items() if name != key}, f"without {key}"
        yield on, {**met, key: "false" if operator == "Bool" else FOREIGN}, f"with another {key}"


def report() -> list[str]:
    """Prints the figures; returns what does not hold, a line each. Raises as simulate() does."""
    phases = granted()
    policies, rows = deployer_policies(phases), deployer_rows(phases)
    known = {**policies, KEY: IAM_DECIDES}
    failed = [f"matrix: {row}" for row in failures(rows, known)]
    tried, wider = list(mutants(policies)), list(widened(policies))
    survived, unbounded = survivors(rows, known, tried), survivors(rows, known, wider)
    failed += [f"mutation: no row notices {mutant}" for mutant in [*survived, *unbounded]]
    found, ways = findings(policies), escalations(policies)
    failed += [f"parliament: {finding}" for finding in unexplained(found, EXPLAINED)]
    failed += [f"cloudsplaining: {way}" for way in ways]
    must = sum(row.allowed for row in rows)
    actions = {phase: len({grant.action for grant in allowed}) for phase, allowed in phases.items()}
    print("deployer: " + ", ".join(f"{count} actions to {phase}" for phase, count in actions.items()))
    print(f"deployer: {len(rows)} rows: {must} must, {len(rows) - must} must not")
    print(f"deployer: {len(tried)} statements and parts taken away in turn: {len(tried) - len(survived)} noticed")
    print(f"deployer: {len(wider)} statements widened in turn: {len(wider) - len(unbounded)} noticed")
    print(f"deployer: parliament: {len(found)} findings, {len(unexplained(found, EXPLAINED))} of them unexplained")
    print(f"deployer: cloudsplaining: {len(ways)} ways to escalate")
    return failed
