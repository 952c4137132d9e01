"""`python -m security roles`: the matrix, the mutation run and the linters over the policies of a real plan."""

from __future__ import annotations

from pathlib import Path

from security import deployer_matrix
from security.calls import recorded_actions, unrecorded, untabled
from security.lint import escalations, findings, unexplained
from security.matrix import boundary, failures, read_rows
from security.mutation import mutants, survivors, widened
from security.plan import BOUNDARY, boundaries, make_plan, planned_policies
from security.tested import none_of


def report(calls: Path) -> list[str]:
    """Prints the figures; returns what does not hold, a line each.

    calls: those of a run in the local account. Raises as make_plan(), simulate() and recorded_actions() do.
    """
    plan = make_plan()
    policies = planned_policies(plan)
    rows = read_rows()
    names = sorted(document.removeprefix("role ") for document in policies if document.startswith("role "))
    recorded = recorded_actions(calls, names)
    failed = [f"matrix: {row}" for row in failures(rows, policies)]
    failed += [f"boundary: {role} has {arn}" for role, arn in boundaries(plan).items() if arn != BOUNDARY]

    bounded = {**policies, "boundary": boundary()}
    tried = list(mutants(bounded))
    survived = survivors(rows, policies, tried)
    failed += [f"mutation: no row notices {mutant}" for mutant in survived]

    wider = list(widened(bounded))
    unbounded = survivors(rows, policies, wider)
    failed += [f"mutation: no row notices {mutant}" for mutant in unbounded]

    failed += [f"calls: in no row of the role: {taken}" for taken in untabled(recorded, rows)]
    unseen = unrecorded(recorded, rows)
    excused = {f"{row.table}: {row.action}" for row in rows if row.unseen}
    failed += [f"calls: own code's, not recorded, and no reason why: {said}" for said in unseen if said not in excused]

    found = findings(bounded)
    ways = escalations(policies)
    failed += [f"parliament: {finding}" for finding in unexplained(found)]
    failed += [f"cloudsplaining: {way}" for way in ways]

    must = sum(row.allowed for row in rows)
    cited = [row.page for row in rows if row.page]
    print(f"{len(names)} roles, {len(policies)} policies of the plan")
    print(f"{len(rows)} rows: {must} must, {len(rows) - must} must not")
    print(f"{len(cited)} rows of calls that AWS's services make, citing {len(set(cited))} of AWS's pages")
    taken = sum(map(len, recorded.values()))
    known = taken - len(untabled(recorded, rows))
    print(f"{taken} actions of {len(recorded)} roles recorded in a run: {known} in a row")
    kept = len([said for said in unseen if said in excused])
    print(f"{len(unseen)} actions of these roles' own code not recorded in it: {kept} with a reason in the table")
    for kind, whole in (("statements", True), ("parts of statements", False)):
        mutated = [mutant for mutant in tried if mutant.whole == whole]
        caught = len(mutated) - sum(mutant.whole == whole for mutant in survived)
        print(f"{len(mutated)} {kind} taken away in turn: {caught} noticed")
    print(f"{len(wider)} statements widened in turn: {len(wider) - len(unbounded)} noticed")
    print(f"parliament: {len(found)} findings, {len(unexplained(found))} of them unexplained")
    print(f"cloudsplaining: {len(ways)} ways to escalate")
    return failed + none_of({"call of a role": taken}) + deployer_matrix.report()
