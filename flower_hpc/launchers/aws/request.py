"""What EC2 is asked and what it answers, translated: a launch template, a fleet of one, a node's state."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..base import JobState, JobStatus
from .options import Ec2Options

Json = dict[str, Any]
FEDERATION, SITE, OWNER = "flower-hpc:federation", "flower-hpc:site", "flower-hpc:owner"
NODE, TICKET = "flower-hpc:node", "flower-hpc:ticket"
NOTICE_S = 120.0
"""From a spot notice to the end."""
STATES = {
    "pending": JobState.PENDING,
    "running": JobState.RUNNING,
    "shutting-down": JobState.CANCELLED,
    "terminated": JobState.CANCELLED,
    "stopping": JobState.CANCELLED,
    "stopped": JobState.CANCELLED,
}
ENDS = {
    "Server.SpotInstanceTermination": JobState.PREEMPTED,
    "Server.SpotInstanceShutdown": JobState.PREEMPTED,
    "Server.ScheduledStop": JobState.PREEMPTED,
    "Server.InsufficientInstanceCapacity": JobState.PREEMPTED,
    "Server.InternalError": JobState.FAILED,
    "Client.InternalError": JobState.FAILED,
    "Client.InvalidSnapshot.NotFound": JobState.FAILED,
    "Client.VolumeLimitExceeded": JobState.FAILED,
    "Client.InstanceInitiatedShutdown": JobState.SUCCEEDED,
}
NEVER_TAKEN = "Server.InsufficientInstanceCapacity"
NOT_OURS = ("InstanceMarketOptions", "TagSpecifications", "UserData")
"""What of somebody's launch template is not taken over."""


@dataclass(frozen=True)
class Whose:
    """What a site's things are marked with; ``owner`` is its own among all federations of the account."""

    federation: str
    site: str
    owner: str

    def tags(self) -> dict[str, str]:
        """Of all that is the site's."""
        return {FEDERATION: self.federation, SITE: self.site, OWNER: self.owner}

    def of_node(self, node: str, ticket: str) -> dict[str, str]:
        """Of all that is a node's."""
        return self.tags() | {NODE: node, TICKET: ticket}


def template_data(options: Ec2Options, whose: Whose, user_data: str, base: Json, root_device: str) -> Json:
    """The launch template of a site's nodes.

    Parameters
    ----------
    options : Ec2Options
        What the site asks for.
    whose : Whose
        For the tags of its volumes.
    user_data : str
        What its instances do at their first boot.
    base : dict
        The data of the user's own launch template; empty where there is none.
    root_device : str
        The image's name for it.
    """
    volume = _root_volume(base, root_device)
    volume |= {"Encrypted": True, "DeleteOnTermination": True}
    volume |= {"VolumeSize": options.disk_gb} if options.disk_gb else {}
    volume.setdefault("VolumeType", "gp3")
    others = [one for one in base.get("BlockDeviceMappings", ()) if one.get("DeviceName") != root_device]
    tags = as_list(dict(options.tags) | whose.tags() | {"Name": whose.owner})
    data = {key: value for key, value in base.items() if key not in NOT_OURS} | {
        "UserData": base64.b64encode(user_data.encode()).decode(),
        "InstanceInitiatedShutdownBehavior": "terminate",
        # the node reads from its tags which one it is
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "enabled",
        },
        "BlockDeviceMappings": [{"DeviceName": root_device, "Ebs": volume}, *others],
        "TagSpecifications": [{"ResourceType": "volume", "Tags": tags}],
    }
    if options.image:
        data["ImageId"] = options.image
    if options.key_name:
        data["KeyName"] = options.key_name
    if options.instance_profile:
        kind = "Arn" if options.instance_profile.startswith("arn:") else "Name"
        data["IamInstanceProfile"] = {kind: options.instance_profile}
    if options.security_groups:
        data["SecurityGroupIds"] = list(options.security_groups)
    return data


def _root_volume(base: Json, device: str) -> Json:
    named = [one for one in base.get("BlockDeviceMappings", ()) if one.get("DeviceName") == device]
    return dict(named[0].get("Ebs", {})) if named else {}


def template_name(whose: Whose, data: Json) -> str:
    """The same for the same data: who makes it twice finds it there."""
    digest = hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:10]
    return f"flower-hpc-{whose.owner}-{digest}"


def fleet(options: Ec2Options, template: str, tags: Mapping[str, str], token: str) -> Json:
    """One instance, of the type and in the place that suit best."""
    places = [{"SubnetId": one} for one in options.subnets] or [
        {"AvailabilityZone": z} for z in options.zones
    ]
    price = {"MaxPrice": f"{options.max_price:g}"} if options.max_price else {}
    overrides = [
        {"InstanceType": kind, **place, **price, **({} if options.market == "spot" else {"Priority": rank})}
        for rank, kind in enumerate(options.types)
        for place in (places or [{}])
    ]
    spec = {"LaunchTemplateName": template, "Version": "1"}
    strategy = (
        {"SpotOptions": {"AllocationStrategy": "capacity-optimized"}}
        if options.market == "spot"
        else {"OnDemandOptions": {"AllocationStrategy": "prioritized"}}
    )
    return {
        "Type": "instant",
        "ClientToken": token,
        "LaunchTemplateConfigs": [{"LaunchTemplateSpecification": spec, "Overrides": overrides}],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": 1,
            "DefaultTargetCapacityType": options.market,
        },
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": as_list(tags)} for kind in ("instance", "fleet")
        ],
        **strategy,
    }


def token_of(whose: Whose, ticket: str, attempt: int) -> str:
    """The client token: AWS answers a repeated request with what the first one made."""
    return hashlib.sha256(f"{whose.owner}/{ticket}/{attempt}".encode()).hexdigest()


def as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as AWS writes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def as_tags(thing: Mapping[str, Any]) -> dict[str, str]:
    """The tags of what AWS describes."""
    return {one["Key"]: one["Value"] for one in thing.get("Tags", ())}


def is_over(instance: Mapping[str, Any]) -> bool:
    """Whether it costs nothing any more, and will not again."""
    return instance["State"]["Name"] in ("shutting-down", "terminated")


def status_of(instance: Mapping[str, Any], notice: float | None = None) -> JobStatus:
    """A node's state from what ``describe_instances`` says; ``notice`` is when a spot notice came."""
    name, reason = instance["State"]["Name"], instance.get("StateReason", {})
    state, why = STATES.get(name, JobState.UNKNOWN), ""
    if state.final:
        state = ENDS.get(reason.get("Code", ""), state)
        why = reason.get("Message") or f"the instance is {name}"
    elif state is JobState.PENDING:
        why = "the instance boots"
    if notice is not None and not state.final:
        why = "spot notice"
    zone = instance.get("Placement", {}).get("AvailabilityZone", "")
    where = ", ".join(filter(None, (instance.get("InstanceType", ""), zone)))
    return JobStatus(
        state,
        why,
        where=where,
        job=instance["InstanceId"],
        leaves_at=notice + NOTICE_S if notice is not None and not state.final else None,
    )
