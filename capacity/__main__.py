"""Plan capacity: what a configuration does under a trace of requests, and what it costs.

    python -m capacity measure --url URL [--picture FILE] [--out PROFILE] [--slo-p99-ms MS]
    python -m capacity simulate --trace FILE|bursty|diurnal|poisson --config FILE [--config FILE ...]
    python -m capacity recommend --trace FILE|bursty|diurnal|poisson [--slo-p99-ms MS] > capacity.auto.tfvars
    python -m capacity cost --config FILE [--config FILE ...]

Reads the variable files that Terraform reads, in the same order. Needs no AWS account.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from capacity import configuration, offer_files, prices, profile, report, trace
from capacity.bill import Usage, bill
from capacity.errors import NothingKeepsTheSLO, UserError
from capacity.recommend import recommend, tfvars
from capacity.search import Aim, Exact
from capacity.shapes import SHAPES
from capacity.simulation import simulate
from capacity.system import EVENTS, system
from capacity.target_tracking import ScaleIn
from capacity.tfvars import TERRAFORM_DIR

NOTHING_MEETS_THE_SLO = 3
SCHEDULED = "autoscaling_scheduled_actions"
REFERENCE = TERRAFORM_DIR / "environments" / "reference.tfvars"


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        arguments.verb(arguments)
        sys.stdout.flush()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except NothingKeepsTheSLO as error:
        print(error, file=sys.stderr)
        return NOTHING_MEETS_THE_SLO
    except BrokenPipeError:  # the reader, such as head, has seen enough; Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _measure(arguments: argparse.Namespace) -> None:
    from capacity import invocation, measure, whole_file  # botocore, which no other verb needs

    if not arguments.out.parent.is_dir():
        raise UserError(f"--out {arguments.out}: no such folder: make {arguments.out.parent}")
    sent = invocation.read(arguments.url, arguments.picture)
    server = arguments.workers, arguments.queue_length
    limits = measure.Limits(**{field.name: getattr(arguments, field.name) for field in fields(measure.Limits)})
    slo_seconds = arguments.slo_p99_ms / 1000
    taken = measure.service_times(sent, limits.step_seconds, limits.timeout)
    p50, p99 = np.quantile(taken, [0.5, 0.99]) * 1000
    print(f"one client: {len(taken)} answers, p50 {p50:,.0f} ms, p99 {p99:,.0f} ms", flush=True)
    say = partial(print, flush=True)
    most = measure.most_rate(taken, arguments.workers)
    found = measure.highest_rate(sent, slo_seconds, most / 2, limits, say, arguments.seed)
    slower = measure.slowdown(taken, *server, slo_seconds, found)
    content = measure.profile_of(
        sent, taken, arguments.instance_type, *server, slo_seconds, found, slower, date.today()
    )
    whole_file.write(arguments.out, measure.as_json(content).encode())
    summary = measure.summary(found, slo_seconds, most, partial(measure.simulated_p99, taken, *server), slower)
    files = [arguments.out]
    if arguments.html:
        from capacity import pages

        files += pages.of_measurement(arguments.html, content["source"], taken, found.steps, summary, slo_seconds)
    _print_lines([*summary, *(f"written: {file}" for file in files)])
    if found.held is None:
        raise NothingKeepsTheSLO(f"nothing keeps p99 within {arguments.slo_p99_ms:g} ms: {found.failed:.2f}/s do not")


def _simulate(arguments: argparse.Namespace) -> None:
    configured = configuration.read(arguments.config)
    price_list = prices.read()
    bill(configured, price_list, Usage(instance_hours=0))  # a missing price is said before the work, not after it
    instance_type = configured.endpoint_instance_type
    measured = profile.read(arguments.profile, instance_type) if arguments.profile else profile.assumed(instance_type)
    requests = _requests(arguments)
    # A stream of its own: the same requests take as long whatever the trace drew.
    service_seconds = measured.draw(np.random.default_rng([arguments.seed, 1]), len(requests.arrivals))
    events = EVENTS[arguments.invocation_type]
    outcomes = {
        rule: simulate(requests, service_seconds, system(configured, measured, rule, events), arguments.seed)
        for rule in get_args(ScaleIn)
    }
    one = next(iter(outcomes.values()))  # what is scheduled is so in all of them
    lead = [report.demand(requests), report.service(measured), *report.scheduled(configured, requests, one)]
    print(*lead, "", sep="\n")
    slo_seconds = arguments.slo_p99_ms / 1000
    print(report.outcomes(outcomes, configured, price_list, slo_seconds))
    if arguments.explain:
        for rule, outcome in outcomes.items():
            print("", f"scale-in {rule}:", report.explanation(outcome.decisions, outcome.changes), sep="\n")
    if arguments.html:
        from capacity import pages  # matplotlib, which takes as long to import as a day to simulate

        files = pages.of_simulation(arguments.html, requests, measured, configured, price_list, outcomes, slo_seconds)
        _print_lines([f"written: {file}" for file in files])
    _print_lines(report.staleness(price_list, configured.region, date.today()))


def _recommend(arguments: argparse.Namespace) -> None:
    say = partial(print, file=sys.stderr, flush=True)
    configured, price_list = configuration.read(arguments.config or [REFERENCE]), prices.read()
    if configured.autoscaling_scheduled_actions:
        raise UserError(
            f"{configured.place(SCHEDULED)}: {SCHEDULED} is set: it would replace the minimum and maximum that "
            "`recommend` finds: leave it out here, and `simulate` what is recommended with it"
        )
    given = [profile.read(path) for path in arguments.profile or []]
    profiles = {one.instance_type: one for one in given or [profile.assumed(configured.endpoint_instance_type)]}
    if len(profiles) < len(given):
        raise UserError("--profile: two of them are of the same instance type: give one of each")
    for instance_type in profiles:
        bill(replace(configured, endpoint_instance_type=instance_type), price_list, Usage(instance_hours=0))
    requests = _requests(arguments)
    say(report.demand(requests), *map(report.service, profiles.values()), sep="\n")
    aim = Aim(arguments.slo_p99_ms / 1000, arguments.max_throttled)
    exact = Exact(requests, profiles, price_list, aim, arguments.seed)
    made = recommend(requests, configured, profiles, price_list, aim, exact, say)
    variables = tfvars(made, requests, profiles, configured)
    print(variables, end="")
    if arguments.html:
        from capacity import pages

        files = pages.of_recommendation(arguments.html, requests, profiles, price_list, made, exact, variables)
        say(*(f"written: {file}" for file in files), sep="\n")
    say(*report.staleness(price_list, configured.region, date.today()), sep="\n")


def _requests(arguments: argparse.Namespace) -> trace.Trace:
    if arguments.trace in SHAPES:
        return SHAPES[arguments.trace](arguments.seed)
    if not Path(arguments.trace).exists():
        raise UserError(f"--trace {arguments.trace}: no such file; give a CSV file or one of {', '.join(SHAPES)}")
    return trace.read(Path(arguments.trace), arguments.seed)


def _cost(arguments: argparse.Namespace) -> None:
    configured, reference = configuration.read(arguments.config), configuration.read([REFERENCE])
    if arguments.refresh:
        print(*offer_files.refresh(prices.PRICE_FILE, date.today(), arguments.offers_url), "", sep="\n", flush=True)
    price_list = prices.read(prices.PRICE_FILE)
    print(report.cost(configured, reference, price_list))
    _print_lines(
        report.unscheduled(configured)
        + report.training(configured, price_list)
        + report.claims(reference, price_list)
        + report.staleness(price_list, configured.region, date.today())
    )


def _print_lines(lines: list[str]) -> None:
    if lines:
        print("", *lines, sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m capacity", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True, metavar="measure|simulate|recommend|cost")
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument(
        "--config", type=Path, action="append", required=True, metavar="FILE", help="variables; a later file wins"
    )
    _add_measure(verbs)
    demand = argparse.ArgumentParser(add_help=False)
    demand.add_argument(
        "--trace",
        required=True,
        metavar="FILE|" + "|".join(SHAPES),
        help="CSV with the header time or time,count (seconds or ISO 8601), or a day of a named shape",
    )
    demand.add_argument("--slo-p99-ms", type=_positive, default=500.0, metavar="MS", help="slowest good answer (500)")
    demand.add_argument("--html", type=Path, metavar="FILE", help="a page of it as well, and PNGs beside it")
    demand.add_argument("--seed", type=_seed, default=0, metavar="N", help="of everything drawn at random (0)")
    simulated = verbs.add_parser("simulate", parents=[config, demand], help="let a trace through the stack")
    simulated.add_argument("--profile", type=Path, metavar="FILE", help="service times (assumed ones)")
    simulated.add_argument(
        "--invocation-type",
        choices=EVENTS,
        default="sync",
        help="async: throttled events are tried again; async-raising: those that end in an error too (sync)",
    )
    simulated.add_argument("--explain", action="store_true", help="every scaling decision and what caused it")
    simulated.set_defaults(verb=_simulate)
    recommended = verbs.add_parser("recommend", parents=[demand], help="the cheapest variables that keep the SLO")
    recommended.add_argument(
        "--config", type=Path, action="append", metavar="FILE", help="what to start from (the reference); a later wins"
    )
    recommended.add_argument(
        "--profile", type=Path, action="append", metavar="FILE", help="service times; again for another instance type"
    )
    recommended.add_argument(
        "--max-throttled", type=_share, default=0.01, metavar="SHARE", help="of the requests, at most (0.01)"
    )
    recommended.set_defaults(verb=_recommend)
    priced = verbs.add_parser("cost", parents=[config], help="the monthly bill, by item")
    priced.add_argument("--refresh", action="store_true", help="first read the prices anew from AWS's public files")
    priced.add_argument("--offers-url", default=offer_files.OFFERS_URL, metavar="URL", help="a mirror of those files")
    priced.set_defaults(verb=_cost)
    return parser


def _add_measure(verbs: argparse._SubParsersAction) -> None:
    measured = verbs.add_parser("measure", help="the service times and the highest rate of a server or endpoint")
    measured.add_argument("--url", required=True, metavar="URL", help=".../invocations; an endpoint's is signed")
    measured.add_argument("--picture", type=Path, metavar="FILE", help="sent in every request (one that is made)")
    measured.add_argument(
        "--out",
        type=Path,
        default=Path("profile.json"),
        metavar="PROFILE",
        help="for simulate --profile (profile.json)",
    )
    measured.add_argument("--html", type=Path, metavar="FILE", help="a page of it as well, and PNGs beside it")
    measured.add_argument("--slo-p99-ms", type=_positive, default=500.0, metavar="MS", help="slowest good answer (500)")
    measured.add_argument("--instance-type", default="ml.m5.xlarge", metavar="TYPE", help="(ml.m5.xlarge)")
    measured.add_argument(
        "--workers",
        type=_whole,
        default=profile.ASSUMED.workers,
        metavar="N",
        help="requests the server has in work (2)",
    )
    measured.add_argument(
        "--queue-length", type=_whole, default=profile.ASSUMED.queue_length, metavar="N", help="and in its queue (64)"
    )
    measured.add_argument("--step-seconds", type=_positive, default=20.0, metavar="S", help="of one rate (20)")
    measured.add_argument("--most-seconds", type=_positive, default=300.0, metavar="S", help="of all rates (300)")
    measured.add_argument("--most-requests", type=_whole, default=20_000, metavar="N", help="of all rates (20000)")
    measured.add_argument("--lowest-rate", type=_positive, default=0.5, metavar="RPS", help="worth trying (0.5)")
    measured.add_argument("--resolution", type=_positive, default=0.1, metavar="SHARE", help="of the rate (0.1)")
    measured.add_argument(
        "--timeout-seconds", dest="timeout", type=_positive, default=10.0, metavar="S", help="for one answer (10)"
    )
    measured.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the moments of the requests (0)")
    measured.set_defaults(verb=_measure)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share from 0 to below 1, such as 0.01")
    return number


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
