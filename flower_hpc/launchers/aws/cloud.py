"""EC2 as the launcher uses it: few calls, each with its errors in our words."""

import json
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...errors import LaunchError
from .errors import EXPIRED, NoRoom, Refused, code_of, of_code, translated
from .options import Account
from .request import FEDERATION, OWNER, Json, as_list, as_tags, is_over
from .store import Objects, Parameters, Store

CONNECT_S, READ_S, CALLS = 10, 60, 4
AT_ONCE = 100
MARKED = ("marked-for-termination", "marked-for-stop", "marked-for-termination-due-to-rebalance")


class Ec2Cloud:
    """An account and region; makes its connections when they are first needed.

    Parameters
    ----------
    account : Account
        Which, and the region.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self._clients: dict[tuple[str, int], Any] = {}
        self._lock = threading.Lock()

    def client(self, service: str, calls: int = CALLS) -> Any:
        """boto3's client; with ``calls=1`` it repeats nothing by itself."""
        with self._lock:
            if (service, calls) not in self._clients:
                self._clients[service, calls] = self._connect(service, calls)
            return self._clients[service, calls]

    def _connect(self, service: str, calls: int) -> Any:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise Refused("boto3 is not installed: pip install 'flower-hpc[ec2]'") from error
        config = Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"mode": "standard", "total_max_attempts": calls},
            s3={"addressing_style": "path"} if self.account.endpoint_url else None,
        )
        try:
            session = boto3.Session(profile_name=self.account.profile, region_name=self.account.region)
            # boto3 is typed by its own stubs alone, which name each service
            make: Callable[..., Any] = session.client
            return make(service, endpoint_url=self.account.endpoint_url, config=config)
        except Exception as error:
            raise translated(error, "AWS") from error

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """What is raised within becomes one of our errors, whose text begins with ``what``."""
        try:
            yield
        except LaunchError:
            raise
        except Exception as error:
            if code_of(error) in EXPIRED:  # whoever renews them should not have to start us anew
                with self._lock:
                    self._clients.clear()
            raise translated(error, what) from error

    def store(self, owner: str) -> Store:
        """Where a site's keys are."""
        if self.account.keys == "ssm":
            return Parameters(self.client("ssm"), owner)
        return Objects(self.client("s3"), self.account.keys, owner)

    def instances(self, owner: str, tag: str = OWNER) -> list[Json]:
        """All that are marked so, terminated ones of the last hour too."""
        wanted = [{"Name": f"tag:{tag}", "Values": [owner]}]
        with self.asking("describe instances"):
            pages = self.client("ec2").get_paginator("describe_instances").paginate(Filters=wanted)
            return [one for page in pages for group in page["Reservations"] for one in group["Instances"]]

    def notices(self, requests: Collection[str]) -> dict[str, float]:
        """Spot requests whose instances are about to be taken, and when that was said."""
        found, wanted = {}, sorted(requests)
        with self.asking("describe spot requests"):
            for start in range(0, len(wanted), AT_ONCE):
                said = self.client("ec2").describe_spot_instance_requests(
                    SpotInstanceRequestIds=wanted[start : start + AT_ONCE]
                )
                for one in said["SpotInstanceRequests"]:
                    status = one.get("Status", {})
                    if status.get("Code") in MARKED and status.get("UpdateTime"):
                        found[one["SpotInstanceRequestId"]] = status["UpdateTime"].timestamp()
        return found

    def create(self, request: Json) -> str:
        """The id of a fleet's one instance; NoRoom, Refused or Unclear where there is none."""
        # no repetition by botocore: after a lost answer we look first whether it is there
        with self.asking("create an instance"):
            said = self.client("ec2", calls=1).create_fleet(**request)
        ids = [each for one in said.get("Instances", ()) for each in one["InstanceIds"]]
        if ids:
            return str(ids[0])
        found = [
            of_code(one.get("ErrorCode", ""), one.get("ErrorMessage", ""), "create an instance")
            for one in said.get("Errors", ())
        ]
        # one type that is never to be had does not matter while another only is short
        room = [one for one in found if isinstance(one, NoRoom)]
        raise next(iter((*room, *found)), NoRoom("create an instance: EC2 gave none, and no reason"))

    def terminate(self, ids: Collection[str]) -> None:
        """End instances; no effect on what is gone."""
        for start in range(0, len(wanted := sorted(ids)), AT_ONCE):
            self._terminate(wanted[start : start + AT_ONCE])

    def _terminate(self, ids: list[str]) -> None:
        try:
            with self.asking("terminate"):
                self.client("ec2").terminate_instances(InstanceIds=ids)
        except LaunchError as error:
            if code_of(error) != "InvalidInstanceID.NotFound":
                raise
            for one in ids if len(ids) > 1 else ():  # one that is gone stands in the way of all
                self._terminate([one])

    def template(self, name: str, data: Json, tags: Mapping[str, str]) -> None:
        """Make a launch template, unless it is there."""
        marked = [{"ResourceType": "launch-template", "Tags": as_list(tags)}]
        try:
            with self.asking("create a launch template"):
                self.client("ec2").create_launch_template(
                    LaunchTemplateName=name, LaunchTemplateData=data, TagSpecifications=marked
                )
        except LaunchError as error:
            if code_of(error) != "InvalidLaunchTemplateName.AlreadyExistsException":
                raise

    def template_data(self, launch_template: str) -> Json:
        """What the launch template ``NAME:VERSION`` says."""
        name, _, version = launch_template.partition(":")
        which = "LaunchTemplateId" if name.startswith("lt-") else "LaunchTemplateName"
        with self.asking(f"launch template {name}"):
            said = self.client("ec2").describe_launch_template_versions(
                **{which: name}, Versions=[version or "$Default"]
            )
        return dict(said["LaunchTemplateVersions"][0]["LaunchTemplateData"])

    def root_device(self, image: str) -> str:
        """How an image calls its root device."""
        if image.startswith("resolve:ssm:"):
            name = image.removeprefix("resolve:ssm:")
            with self.asking(f"image {image}"):
                image = self.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
            if image.startswith("{"):
                image = str(json.loads(image).get("image_id", image))
        with self.asking(f"image {image}"):
            said = self.client("ec2").describe_images(ImageIds=[image])["Images"]
        if not said:
            raise Refused(f"image {image}: there is none in this region")
        return str(said[0].get("RootDeviceName") or "/dev/xvda")

    def templates(self, owner: str, tag: str = OWNER) -> list[str]:
        """Names of launch templates that are marked so."""
        wanted = [{"Name": f"tag:{tag}", "Values": [owner]}]
        with self.asking("describe launch templates"):
            pages = self.client("ec2").get_paginator("describe_launch_templates").paginate(Filters=wanted)
            return [one["LaunchTemplateName"] for page in pages for one in page["LaunchTemplates"]]

    def volumes(self, federation: str) -> list[str]:
        """Ids of volumes of the federation that no instance has."""
        wanted = [{"Name": f"tag:{FEDERATION}", "Values": [federation]}]
        wanted.append({"Name": "status", "Values": ["available"]})
        with self.asking("describe volumes"):
            pages = self.client("ec2").get_paginator("describe_volumes").paginate(Filters=wanted)
            return [one["VolumeId"] for page in pages for one in page["Volumes"]]

    def parameters(self, federation: str) -> list[str]:
        """Names of SSM parameters of the federation."""
        wanted = [{"Key": f"tag:{FEDERATION}", "Values": [federation]}]
        with self.asking("describe SSM parameters"):
            pages = self.client("ssm").get_paginator("describe_parameters").paginate(ParameterFilters=wanted)
            return [one["Name"] for page in pages for one in page["Parameters"]]

    def delete_template(self, name: str) -> None:
        """Remove a launch template."""
        with self.asking(f"delete launch template {name}"):
            self.client("ec2").delete_launch_template(LaunchTemplateName=name)

    def delete_fleets(self, instances: Iterable[Mapping[str, Any]]) -> None:
        """Remove the fleets that instances came from, whose instances have ended."""
        ids = {as_tags(one).get("aws:ec2:fleet-id", "") for one in instances if is_over(one)} - {""}
        if ids:
            with self.asking("delete fleets"):
                self.client("ec2").delete_fleets(FleetIds=sorted(ids), TerminateInstances=True)

    def console(self, instance: str) -> str:
        """What an instance has written to its console; empty where there is nothing yet."""
        with self.asking(f"console of {instance}"):
            try:
                said = self.client("ec2").get_console_output(InstanceId=instance, Latest=True)
            except Exception as error:
                if code_of(error) not in ("UnsupportedOperation", "InvalidParameterCombination"):
                    raise
                said = self.client("ec2").get_console_output(InstanceId=instance)  # not a Nitro type
        return str(said.get("Output") or "").replace("\r\n", "\n")
