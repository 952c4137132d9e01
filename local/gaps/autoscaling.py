"""EC2 Auto Scaling gaps of moto 5.2.5. Groups, launch-template instances and decrement itself work."""

from typing import Any

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import AutoScalingBackend

from local.gaps.patch import around


def fill() -> None:
    """TerminateInstanceInAutoScalingGroup: an unknown instance ends in a 500, and a decrement may pass the minimum."""

    @around(AutoScalingBackend)
    def terminate_instance(original: Any, backend: AutoScalingBackend, instance_id: str, should_decrement: bool) -> Any:
        for group in backend.autoscaling_groups.values():
            if any(state.instance.id == instance_id for state in group.instance_states):
                break
        else:
            raise ValidationError(f"Instance Id not found - No managed instance found for instance ID: {instance_id}")
        if should_decrement and group.desired_capacity <= group.min_size:
            raise ValidationError(
                f"Currently, desiredSize equals minSize ({group.min_size}). Terminating instance without replacement "
                "will violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false "
                "or lower group's min size."
            )
        return original(backend, instance_id, should_decrement)
