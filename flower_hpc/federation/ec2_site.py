"""A site of EC2 instances.

::

    sites:
      cloud:
        launcher: ec2
        nodes: 4
        region: eu-central-1          # default: that of ~/.aws/config or the environment, as profile
        profile: lab
        image: ami-0123456789abcdef0  # or resolve:ssm:PARAMETER
        types: [g5.xlarge, g4dn.xlarge]   # the best first; default g4dn.xlarge
        market: spot                  # spot (default) or on-demand
        max_price: 0.6                # US dollars an hour for spot; default: the on-demand price
        instance_profile: flower-hpc-node     # its role reads keys, and nothing else
        subnets: [subnet-0123456789abcdef0]   # or zones; default: the region's default network
        security_groups: [sg-0123456789abcdef0]   # nodes call out and are never called
        launch_template: my-gpu:3     # what is not said here is as it says; then no image is needed
        disk_gb: 100                  # encrypted, and gone with the instance; default: the image's size
        setup: [apt-get install -y git]       # bash, as root, at the first boot
        package: flower-hpc[ec2,tasks]        # what pip installs; or
        python: /opt/venv/bin/python          # one of the image that has flower-hpc
        keys: ssm                     # or s3://BUCKET/PREFIX
        key_name: me                  # for ssh
        tags: {project: fl}
        via: gate.example.org:9000    # where its nodes reach the gateway
        grace_s: 60                   # between being asked to leave and being killed
        max_hours: 24                 # an instance ends itself after so many; default: none does
        patience_min: 60              # and after so long without the SuperLink
        endpoint_url: https://...     # of a VPC endpoint, or of a test's
"""

from dataclasses import fields
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ..errors import ConfigError
from ..launchers.aws.options import NUMBERS, PACKAGE, RULES, Ec2Options, why_not
from .fields import Seconds
from .site import CloudSite


class Ec2Site(CloudSite):
    """Nodes that are EC2 instances; see the module's text."""

    launcher: Literal["ec2"]  # type: ignore[assignment]
    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None
    launch_template: str | None = None
    image: str | None = None
    types: list[str] = Field(default=["g4dn.xlarge"], min_length=1)
    zones: list[str] = Field(default=[])
    subnets: list[str] = Field(default=[])
    security_groups: list[str] = Field(default=[])
    instance_profile: str | None = None
    key_name: str | None = None
    market: Literal["spot", "on-demand"] = "spot"
    max_price: float | None = Field(default=None, strict=False)
    disk_gb: int | None = None
    setup: list[str] = Field(default=[])
    python: str | None = None
    package: str = PACKAGE
    keys: str = "ssm"
    tags: dict[str, str] = Field(default={})
    max_hours: int | None = None
    patience_min: int = 60
    poll_s: Seconds = 10.0

    @field_validator(*(set(RULES) | set(NUMBERS) | {"tags", "package", "setup"}) - {"market", "grace_s"})
    @classmethod
    def _as_the_launcher_takes_it(cls, value: Any, info: ValidationInfo) -> Any:
        if wrong := why_not(str(info.field_name), value):
            raise ValueError(wrong)
        return value

    @model_validator(mode="after")
    def _possible(self) -> "Ec2Site":
        try:
            self.batch()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def batch(self) -> Ec2Options:
        """What the launcher is told."""
        own: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(Ec2Options)}
        own |= {name: tuple(value) for name, value in own.items() if isinstance(value, list)}
        return Ec2Options(**own)
