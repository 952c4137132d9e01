"""The system to simulate, of a configuration and a profile."""

from __future__ import annotations

from capacity.configuration import Configuration
from capacity.endpoint import Variant
from capacity.event_queue import Events
from capacity.execution_environments import Function
from capacity.profile import Profile
from capacity.simulation import System
from capacity.target_tracking import Policy, ScaleIn

# AWS's default quota of an account; a new one may have 10 until it has been used.
ACCOUNT_CONCURRENCY = 1000

# What an endpoint took from one to two ml.g5.xlarge instances (seen in August 2026); AWS documents no figure.
UPDATE_SECONDS = 213.0

# As terraform/modules/lambda sets it. Its function answers whatever goes wrong, which Lambda takes for success; one
# that raises is run again.
MAXIMUM_EVENT_AGE_SECONDS = 3600.0
EVENTS = {
    "sync": None,
    "async": Events(MAXIMUM_EVENT_AGE_SECONDS, error_waits=()),
    "async-raising": Events(MAXIMUM_EVENT_AGE_SECONDS),
}


def system(configuration: Configuration, profile: Profile, scale_in: ScaleIn, events: Events | None = None) -> System:
    """See simulation.System. events: of a function that is invoked asynchronously."""
    reserved = configuration.lambda_reserved_concurrency
    return System(
        Function(
            concurrency=ACCOUNT_CONCURRENCY if reserved is None else reserved,
            provisioned=configuration.lambda_provisioned_concurrency,
            overhead=profile.lambda_seconds,
            cold_start=profile.cold_start_seconds,
            timeout=configuration.lambda_timeout_seconds,
            events=events,
        ),
        Variant(workers=profile.workers, queue_length=profile.queue_length, update_seconds=UPDATE_SECONDS),
        Policy(
            target=configuration.autoscaling_target_invocations_per_minute,
            minimum=configuration.autoscaling_min_capacity,
            maximum=configuration.autoscaling_max_capacity,
            scale_in_cooldown=configuration.autoscaling_scale_in_cooldown_seconds,
            scale_out_cooldown=configuration.autoscaling_scale_out_cooldown_seconds,
            scale_in=scale_in,
        ),
        configuration.autoscaling_scheduled_actions,
    )
