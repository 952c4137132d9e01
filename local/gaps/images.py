"""Machine images that moto 5.2.5 lacks: Debian's and Ubuntu's, and the public SSM parameters that name them."""

import hashlib
import re
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ssm.models import Parameter, ParameterDict

from local.gaps.patch import around

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}
# (parameter, owner, root device), as the distributions publish them.
_PUBLISHED = (
    (re.compile(r"/aws/service/debian/release/(?:11|12|13)/latest/(amd64|arm64)"), "136693071363", "/dev/xvda"),
    (
        re.compile(
            r"/aws/service/canonical/ubuntu/server/(?:20|22|24)\.04/stable/current/(amd64|arm64)/hvm/ebs-gp[23]/ami-id"
        ),
        "099720109477",
        "/dev/sda1",
    ),
)


def fill() -> None:
    """GetParameter, DescribeImages: the parameters below /aws/service/debian and /aws/service/canonical are missing,
    and so are the images. One is registered, with a made-up id, when its parameter is first asked for."""

    @around(ParameterDict)
    def _check_loading_status(original: Any, parameters: ParameterDict, key: str) -> None:
        original(parameters, key)
        for pattern, owner, root_device in _PUBLISHED:
            if (match := pattern.fullmatch(str(key))) and not dict.__contains__(parameters, key):
                image_id = f"ami-{hashlib.sha256(key.encode()).hexdigest()[:17]}"
                _register(parameters, image_id, key, owner, _ARCHITECTURES[match[1]], root_device)
                dict.__setitem__(parameters, key, [_parameter(parameters, key, image_id)])


def _register(
    parameters: ParameterDict, image_id: str, name: str, owner: str, architecture: str, root_device: str
) -> None:
    ec2 = ec2_backends[parameters.account_id][parameters.region_name]
    ec2.amis[image_id] = Ami(
        ec2,
        image_id,
        name=name.removeprefix("/aws/service/").replace("/", "-"),
        owner_id=owner,
        public=True,
        virtualization_type="hvm",
        architecture=architecture,
        hypervisor="xen",
        root_device_type="ebs",
        root_device_name=root_device,
    )


def _parameter(parameters: ParameterDict, name: str, value: str) -> Parameter:
    return Parameter(
        account_id=parameters.account_id,
        name=name,
        value=value,
        parameter_type="String",
        description=None,
        allowed_pattern=None,
        keyid=None,
        last_modified_date=0,
        version=1,
        data_type="aws:ec2:image",
    )
