"""What of a federation still costs money at AWS, whoever started it: found by its tags."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...clock import WALL
from ...errors import LaunchError
from ...launchers.aws import request
from ...launchers.aws.cloud import Ec2Cloud
from ...launchers.aws.store import Objects
from .finding import Finding, ok, problem, warning

SHOWN = 20
DOWN = "`flower-hpc down` of whoever started it, or"


def left(cloud: Ec2Cloud, federation: str, site: str, *, is_up: bool) -> Iterator[Finding]:
    """Instances, volumes, launch templates and keys of all sites of the federation's name."""
    try:
        instances = [
            one for one in cloud.instances(federation, tag=request.FEDERATION) if not request.is_over(one)
        ]
        volumes = cloud.volumes(federation)
        templates = cloud.templates(federation, tag=request.FEDERATION)
        keys = cloud.parameters(federation) + objects(cloud, federation, site)
    except LaunchError as error:
        yield warning("left over", str(error), "look by hand for the tag flower-hpc:federation")
        return
    region = cloud.client("ec2").meta.region_name
    if is_up:
        yield ok("instances", f"{len(instances)} of federation {federation}: {short(map(line, instances))}")
        return
    for one in instances:
        way = f"aws ec2 terminate-instances --region {region} --instance-ids {one['InstanceId']}"
        yield problem("left over", f"the federation is down, and {line(one)} costs money", f"{DOWN} {way}")
    for volume in volumes:
        way = f"aws ec2 delete-volume --region {region} --volume-id {volume}"
        yield problem("left over", f"the federation is down, and volume {volume} costs money", way)
    for name in templates:
        way = f"aws ec2 delete-launch-template --region {region} --launch-template-name {name}"
        yield problem(
            "left over", f"the federation is down, and launch template {name} is there", f"{DOWN} {way}"
        )
    for name in keys:
        way = f"aws s3 rm {name}" if name.startswith("s3:") else f"aws ssm delete-parameter --name {name}"
        yield problem("left over", f"the federation is down, and the key {name} is there", f"{DOWN} {way}")
    if not (instances or volumes or templates or keys):
        yield ok("left over", f"nothing of federation {federation} is in {region}")


def objects(cloud: Ec2Cloud, federation: str, site: str) -> list[str]:
    """Keys of the site in its bucket; objects have no tags that could be looked for."""
    place = cloud.account.keys.rstrip("/")
    if place == "ssm":
        return []
    found = Objects(cloud.client("s3"), place, "").names()
    return [f"{place}/{name}" for name in found if name.startswith(f"{federation}-{site}-")]


def line(instance: Mapping[str, Any]) -> str:
    """An instance in words, with its age."""
    tags = request.as_tags(instance)
    hours = (WALL.wall() - instance["LaunchTime"].timestamp()) / 3600
    name = tags.get(request.NODE) or tags.get(request.SITE, "?")
    kind, state = instance.get("InstanceType", "?"), instance["State"]["Name"]
    return f"{instance['InstanceId']} ({name}, {kind}, {state}, {hours:.1f} h old)"


def short(lines: Iterable[str]) -> str:
    """The first of many."""
    found = list(lines)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more or "none"
