"""The account's EC2 and EC2 Auto Scaling."""

import base64

import pytest
from botocore.exceptions import ClientError

from local.account import Account

IMAGE = "ami-12c6146b"


def _encoded(size: int) -> str:
    return base64.b64encode(b"#" * size).decode()


def test_security_group_rules_keep_their_descriptions(control_plane: Account) -> None:
    ec2 = control_plane.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="described", Description="d", VpcId=vpc)["GroupId"]
    prefix_list = ec2.describe_managed_prefix_lists()["PrefixLists"][0]["PrefixListId"]
    sources = {
        "a group": {"UserIdGroupPairs": [{"GroupId": group, "Description": "a group"}]},
        "a prefix list": {"PrefixListIds": [{"PrefixListId": prefix_list, "Description": "a prefix list"}]},
        "a range": {"IpRanges": [{"CidrIp": "10.0.0.0/8", "Description": "a range"}]},
    }
    for source in sources.values():
        permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443} | source
        ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[permission])
    rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    assert {rule.get("Description") for rule in rules} == {*sources, None}  # None: the default egress rule


def test_launch_template_data_holds_only_the_tags_asked_for(control_plane: Account) -> None:
    ec2 = control_plane.client("ec2")
    asked = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "box"}]}]
    ec2.create_launch_template(
        LaunchTemplateName="tagged",
        LaunchTemplateData={"ImageId": IMAGE, "TagSpecifications": asked},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": [{"Key": "Project", "Value": "x"}]}],
    )
    [version] = ec2.describe_launch_template_versions(LaunchTemplateName="tagged")["LaunchTemplateVersions"]
    assert version["LaunchTemplateData"]["TagSpecifications"] == asked
    [template] = ec2.describe_launch_templates(LaunchTemplateNames=["tagged"])["LaunchTemplates"]
    assert template["Tags"] == [{"Key": "Project", "Value": "x"}]


def test_user_data_is_limited_to_16_kb_decoded(control_plane: Account) -> None:
    ec2 = control_plane.client("ec2")
    ec2.create_launch_template(LaunchTemplateName="full", LaunchTemplateData={"UserData": _encoded(16384)})
    for refused in (
        lambda: ec2.create_launch_template(LaunchTemplateName="over", LaunchTemplateData={"UserData": _encoded(16385)}),
        lambda: ec2.create_launch_template_version(
            LaunchTemplateName="full", LaunchTemplateData={"UserData": _encoded(16385)}
        ),
        lambda: ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, UserData="#" * 16385),
    ):
        with pytest.raises(ClientError, match="16384 bytes, not 16385"):
            refused()


def test_instance_monitoring(control_plane: Account) -> None:
    ec2 = control_plane.client("ec2")
    [instance] = ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1)["Instances"]
    ids = [instance["InstanceId"]]

    def state() -> str:
        return ec2.describe_instances(InstanceIds=ids)["Reservations"][0]["Instances"][0]["Monitoring"]["State"]

    [answer] = ec2.monitor_instances(InstanceIds=ids)["InstanceMonitorings"]
    assert answer == {"InstanceId": ids[0], "Monitoring": {"State": "enabled"}}
    assert state() == "enabled"
    ec2.unmonitor_instances(InstanceIds=ids)
    assert state() == "disabled"


def test_a_box_trains_once_and_takes_itself_away(control_plane: Account) -> None:
    ec2, autoscaling = control_plane.client("ec2"), control_plane.client("autoscaling")
    ec2.create_launch_template(LaunchTemplateName="box", LaunchTemplateData={"ImageId": IMAGE})
    # The second version's user-data is the one that moto alone cannot launch from.
    data = {"ImageId": IMAGE, "InstanceType": "m5.2xlarge", "UserData": _encoded(10)}
    ec2.create_launch_template_version(LaunchTemplateName="box", LaunchTemplateData=data)
    autoscaling.create_auto_scaling_group(
        AutoScalingGroupName="box",
        MinSize=0,
        MaxSize=1,
        AvailabilityZones=["us-east-1a"],
        LaunchTemplate={"LaunchTemplateName": "box", "Version": "$Latest"},
    )
    autoscaling.set_desired_capacity(AutoScalingGroupName="box", DesiredCapacity=1)

    def group() -> dict:
        return autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=["box"])["AutoScalingGroups"][0]

    [instance] = group()["Instances"]
    autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=instance["InstanceId"], ShouldDecrementDesiredCapacity=True
    )
    assert (group()["DesiredCapacity"], group()["Instances"]) == (0, [])
    with pytest.raises(ClientError, match="No managed instance found"):
        autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=instance["InstanceId"], ShouldDecrementDesiredCapacity=True
        )


@pytest.mark.parametrize(
    ("parameter", "root_device"),
    [
        ("/aws/service/debian/release/12/latest/amd64", "/dev/xvda"),
        ("/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id", "/dev/sda1"),
    ],
)
def test_public_parameters_name_images_that_exist(control_plane: Account, parameter: str, root_device: str) -> None:
    ssm = control_plane.client("ssm")
    image_id = ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    assert ssm.get_parameter(Name=parameter)["Parameter"]["Value"] == image_id
    [image] = control_plane.client("ec2").describe_images(ImageIds=[image_id])["Images"]
    assert (image["RootDeviceName"], image["Architecture"]) == (root_device, "x86_64")
    with pytest.raises(ssm.exceptions.ParameterNotFound):
        ssm.get_parameter(Name=parameter.replace("amd64", "s390x"))
