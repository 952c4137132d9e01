"""Evidence about the stack's security, measured. Figures go to stdout, what does not hold to stderr.

    python -m security roles [--calls FILE]      # least privilege of every role, over the policies of a real plan
    python -m security scans                     # checkov over the source and the plan of every environment
    python -m security vectors [--slow]          # the picture fetch and the fuzzed servers
    python -m security deployer-policy --account ID          # the least that Terraform needs, as IAM's documents
    python -m security record-deployer           # what that is derived from, anew: a whole life of the stack
    python -m security faults [--slow]           # what fails on purpose, and what stands around it
    python -m security supply                    # locks, advisories, secrets
    python -m security all [--slow] [--reports FILE ...]     # one table of them all; `make security`

Exit status: 0, 1 where something does not hold, 2 for a mistake in the call or a missing tool.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from security.simulator import SimulatorMissing

BUILD = Path(__file__).resolve().parents[1] / "build"
CALLS = BUILD / "local" / "calls.jsonl"
DOCUMENTS = BUILD / "deployer"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m security", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("roles", help="least privilege of every role, over the policies of a real plan")
    command.add_argument(
        "--calls", type=Path, default=CALLS, help="recorded by the local account (default: the demo's)"
    )
    commands.add_parser("scans", help="checkov over the source and the plan of every environment")
    commands.add_parser("supply", help="locks, advisories, secrets")
    for name, what in (
        ("vectors", "the picture fetch and the fuzzed servers"),
        ("faults", "what fails on purpose, and what stands around it"),
        ("all", "one table of them all"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("--slow", action="store_true", help="as much as `make test-slow` does")
    command.add_argument("--calls", type=Path, default=CALLS, help="as `roles` takes them")
    help_text = "pytest's --junitxml of runs of all tests, not to run them again"
    command.add_argument("--reports", type=Path, nargs="+", default=[], metavar="FILE", help=help_text)
    command = commands.add_parser("deployer-policy", help="the least that Terraform needs, as IAM's documents")
    command.add_argument("--account", required=True, help="twelve digits")
    command.add_argument("--name", default="image-classifier", help="the stack's (default: %(default)s)")
    command.add_argument("--region", default="us-east-1", help="default: %(default)s")
    command.add_argument("--boundary-arn", help="of the roles it makes (default: policy/NAME-workload-boundary)")
    command.add_argument("--state", help="s3://bucket/key of Terraform's state, where it lies in S3")
    command.add_argument("--output", type=Path, default=DOCUMENTS, help="folder (default: build/deployer)")
    commands.add_parser("record-deployer", help="anew what deployer-policy is derived from, in the local account")
    options = parser.parse_args(arguments)
    try:
        failed = _report(options)
    except (SimulatorMissing, RuntimeError, ValueError) as error:  # a tool, Terraform's plan, a table or a record
        print(f"security: {error}", file=sys.stderr)
        return 2
    for failure in failed:
        print(failure, file=sys.stderr)
    return 1 if failed else 0


def _report(options: argparse.Namespace) -> list[str]:
    if "calls" in options and not options.calls.is_file():
        raise ValueError(f"--calls {options.calls}: no such file: run make demo, which records its own")
    # Each takes a second to import.
    match options.command:
        case "roles":
            from security import roles

            return roles.report(options.calls)
        case "vectors":
            from security import vectors

            return vectors.report(options.slow)
        case "supply":
            from security import supply

            return supply.report()
        case "deployer-policy":
            from security import deployer_policy as policy

            names = policy.names(options.account, options.name, options.region, options.boundary_arn, options.state)
            return policy.report(options.output, names)
        case "record-deployer":
            from security import recording

            recording.write(recording.record())
            return []
    from security import summary

    match options.command:
        case "scans":
            return summary.scans()
        case "faults":
            return summary.faults(options.slow)
    return summary.everything(options.calls, options.slow, options.reports)


if __name__ == "__main__":
    sys.exit(main())
