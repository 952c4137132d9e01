"""Evidence about the stack's security, measured. Figures go to stdout, what does not hold to stderr.

    python -m security roles [--calls FILE]      # least privilege of every role, over the policies of a real plan
    python -m security vectors [--slow]          # the picture fetch and the fuzzed servers

Exit status: 0, 1 where something does not hold, 2 for a mistake in the call or a missing tool.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from security.simulator import SimulatorMissing

CALLS = Path(__file__).resolve().parents[1] / "build" / "local" / "calls.jsonl"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m security", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("roles", help="least privilege of every role, over the policies of a real plan")
    command.add_argument(
        "--calls", type=Path, default=CALLS, help="recorded by the local account (default: the demo's)"
    )
    command = commands.add_parser("vectors", help="the picture fetch and the fuzzed servers")
    command.add_argument("--slow", action="store_true", help="fuzz as much as `make test-slow` does")
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
    # Each takes a second to import.
    if options.command == "vectors":
        from security import vectors

        return vectors.report(options.slow)
    from security import roles

    if options.calls != CALLS and not options.calls.is_file():
        raise ValueError(f"--calls {options.calls}: no such file")
    return roles.report(options.calls)


if __name__ == "__main__":
    sys.exit(main())
