"""Measure what the README claims, beside its peers, and print the table.

    python -m bench [training|serving|lambda|capacity] [--quick] [--part PART ...]

Wants a quiet machine: about half an hour on two cores. Pictures are made for the run and gone afterwards.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from bench import capacity, lambda_function, machine, table, training
from bench.serving import subject as serving

SUBJECTS = {"training": training, "serving": serving, "lambda": lambda_function, "capacity": capacity}
BUILD = Path(__file__).resolve().parents[1] / "build" / "bench"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("subject", nargs="?", choices=SUBJECTS, help="(all)")
    parser.add_argument("--quick", action="store_true", help="few pictures and rounds: to try the bench")
    parser.add_argument("--part", action="append", metavar="PART", help="of a subject, again for more of them (all)")
    arguments = parser.parse_args(argv)
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in [arguments.subject] if arguments.subject else SUBJECTS:
        subject, started = SUBJECTS[name], time.monotonic()
        if unknown := set(arguments.part or ()) - set(subject.PARTS):
            parser.error(f"--part {min(unknown)}: {name} has {', '.join(subject.PARTS)}")
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            found = subject.rows(arguments.quick, Path(scratch), arguments.part or subject.PARTS)
        lines = [
            f"{name}{' (quick)' if arguments.quick else ''}: {machine.description()}",
            f"load {os.getloadavg()[0]:.1f} at the end, {(time.monotonic() - started) / 60:.0f} minutes",
            table.text(found),
        ]
        (BUILD / f"{name}.md").write_text("\n".join(lines) + "\n")
        print(*lines, sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
