"""EC2 gaps of moto 5.2.5: security group rules, launch templates, instance monitoring, user-data size."""

import base64
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ec2.responses import EC2Response
from moto.ec2.utils import parse_user_data

from local.gaps.patch import adds, around

USER_DATA_LIMIT_BYTES = 16 * 1024


def fill() -> None:
    _security_group_rule_descriptions()
    _launch_template_tag_specifications()
    _launch_template_version_user_data()
    _instance_monitoring()
    _user_data_limit()


def _security_group_rule_descriptions() -> None:
    """DescribeSecurityGroupRules: Description is lost where the source is a security group or a prefix list."""

    @around(SecurityGroupRule)
    def __init__(
        original: Any,
        rule: SecurityGroupRule,
        ec2_backend: Any,
        ip_protocol: str,
        group_id: str,
        from_port: str | None,
        to_port: str | None,
        ip_range: dict[str, str] | None,
        source_group: dict[str, str] | None = None,
        prefix_list_id: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        source = (ip_range, source_group, prefix_list_id)
        original(rule, ec2_backend, ip_protocol, group_id, from_port, to_port, *source, **options)
        rule.first_description = (source_group or prefix_list_id or {}).get("Description")

    # A later description goes into ip_range, whatever the rule's source is.
    SecurityGroupRule.description = property(lambda rule: rule.ip_range.get("Description", rule.first_description))


def _launch_template_tag_specifications() -> None:
    """CreateLaunchTemplate: the template's own tags are echoed inside LaunchTemplateData; AWS keeps the two apart."""

    @around(EC2Response)
    def create_launch_template(original: Any, response: EC2Response) -> ActionResult:
        asked = [dict(spec) for spec in response._get_param("LaunchTemplateData", {}).get("TagSpecifications", [])]
        result = original(response)
        template = response.ec2_backend.get_launch_template(result.result["LaunchTemplate"]["LaunchTemplateId"])
        template.default_version().data["TagSpecifications"] = asked
        return result


def _launch_template_version_user_data() -> None:
    """CreateLaunchTemplateVersion: user-data is kept as a bare string, on which RunInstances then asserts."""

    @around(EC2Response)
    def create_launch_template_version(original: Any, response: EC2Response) -> ActionResult:
        result = original(response)
        data = result.result["LaunchTemplateVersion"]["LaunchTemplateData"]
        data["UserData"] = parse_user_data(data.get("UserData"))
        return result


def _instance_monitoring() -> None:
    """MonitorInstances and UnmonitorInstances are missing."""

    def set_monitoring(response: EC2Response, state: str) -> ActionResult:
        instances = response.ec2_backend.get_multi_instances_by_id(response._get_param("InstanceIds", []))
        for instance in instances:
            instance.monitoring_state = state
        return ActionResult(
            {"InstanceMonitorings": [{"InstanceId": i.id, "Monitoring": {"State": state}} for i in instances]}
        )

    @adds(EC2Response)
    def monitor_instances(response: EC2Response) -> ActionResult:
        return set_monitoring(response, "enabled")

    @adds(EC2Response)
    def unmonitor_instances(response: EC2Response) -> ActionResult:
        return set_monitoring(response, "disabled")


def _user_data_limit() -> None:
    """RunInstances and CreateLaunchTemplate(Version): AWS refuses user-data above 16 KB (decoded)."""

    def check(user_data: str | bytes | None) -> None:
        size = len(base64.b64decode(str(user_data))) if user_data else 0
        if size > USER_DATA_LIMIT_BYTES:
            raise EC2ClientError(
                "InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT_BYTES} bytes, not {size}"
            )

    def refuse_in(name: str, *path: str) -> None:
        def method(original: Any, response: EC2Response) -> Any:
            check(response._get_param(".".join(path)))
            return original(response)

        method.__name__ = name
        around(EC2Response)(method)

    refuse_in("run_instances", "UserData")
    refuse_in("create_launch_template", "LaunchTemplateData", "UserData")
    refuse_in("create_launch_template_version", "LaunchTemplateData", "UserData")
