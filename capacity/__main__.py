"""Plan capacity: what a configuration does under a trace of requests, and what it costs.

    python -m capacity simulate --trace FILE|bursty|diurnal|poisson --config FILE [--config FILE ...]
    python -m capacity cost --config FILE [--config FILE ...]

Reads the variable files that Terraform reads, in the same order. Needs no AWS account.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import date
from pathlib import Path
from typing import get_args

import numpy as np

from capacity import configuration, prices, profile, report, trace
from capacity.bill import Usage, bill
from capacity.errors import UserError
from capacity.shapes import SHAPES
from capacity.simulation import simulate
from capacity.system import system
from capacity.target_tracking import ScaleIn
from capacity.tfvars import TERRAFORM_DIR

REFERENCE = TERRAFORM_DIR / "environments" / "reference.tfvars"


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        arguments.verb(arguments)
        sys.stdout.flush()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as head, has seen enough; Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _simulate(arguments: argparse.Namespace) -> None:
    configured = configuration.read(arguments.config)
    price_list = prices.read()
    bill(configured, price_list, Usage(instance_hours=0))  # a missing price is said before the work, not after it
    instance_type = configured.endpoint_instance_type
    measured = profile.read(arguments.profile, instance_type) if arguments.profile else profile.assumed(instance_type)
    if arguments.trace in SHAPES:
        requests = SHAPES[arguments.trace](arguments.seed)
    elif not Path(arguments.trace).exists():
        raise UserError(f"--trace {arguments.trace}: no such file; give a CSV file or one of {', '.join(SHAPES)}")
    else:
        requests = trace.read(Path(arguments.trace), arguments.seed)
    # A stream of its own: the same requests take as long whatever the trace drew.
    service_seconds = measured.draw(np.random.default_rng([arguments.seed, 1]), len(requests.arrivals))
    outcomes = {
        rule: simulate(requests, service_seconds, system(configured, measured, rule), arguments.seed)
        for rule in get_args(ScaleIn)
    }
    print(report.demand(requests), report.service(measured), "", sep="\n")
    print(report.outcomes(outcomes, configured, price_list, arguments.slo_p99_ms / 1000))
    if arguments.explain:
        for rule, outcome in outcomes.items():
            print("", f"scale-in {rule}:", report.explanation(outcome.decisions), sep="\n")
    _print_lines(report.staleness(price_list, configured.region, date.today()))


def _cost(arguments: argparse.Namespace) -> None:
    configured, reference = configuration.read(arguments.config), configuration.read([REFERENCE])
    price_list = prices.read()
    print(report.cost(configured, reference, price_list))
    _print_lines(
        report.training(configured, price_list)
        + report.claims(reference, price_list)
        + report.staleness(price_list, configured.region, date.today())
    )


def _print_lines(lines: list[str]) -> None:
    if lines:
        print("", *lines, sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m capacity", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True, metavar="simulate|cost")
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument(
        "--config", type=Path, action="append", required=True, metavar="FILE", help="variables; a later file wins"
    )
    simulated = verbs.add_parser("simulate", parents=[config], help="let a trace through the stack")
    simulated.add_argument(
        "--trace",
        required=True,
        metavar="FILE|" + "|".join(SHAPES),
        help="CSV with the header time or time,count (seconds or ISO 8601), or a day of a named shape",
    )
    simulated.add_argument("--profile", type=Path, metavar="FILE", help="service times (assumed ones)")
    simulated.add_argument(
        "--slo-p99-ms", type=_positive, default=500.0, metavar="MS", help="slowest good answer (500)"
    )
    simulated.add_argument("--seed", type=_seed, default=0, metavar="N", help="of everything drawn at random (0)")
    simulated.add_argument("--explain", action="store_true", help="every scaling decision and what caused it")
    simulated.set_defaults(verb=_simulate)
    priced = verbs.add_parser("cost", parents=[config], help="the monthly bill, by item")
    priced.set_defaults(verb=_cost)
    return parser


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
