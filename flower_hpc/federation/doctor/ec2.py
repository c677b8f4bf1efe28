"""What the doctor checks of a site on EC2 without starting anything: who one is there, and what one may."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import LaunchError
from ...launchers.aws.cloud import Ec2Cloud
from ...launchers.aws.errors import NoRoom, Refused, code_of
from ...launchers.aws.options import Account, Ec2Options
from ..ec2_site import Ec2Site
from .ec2_left import left
from .finding import Finding, Health, ok, problem, warning

CREDENTIALS = "`aws sts get-caller-identity` should work here: AWS_PROFILE, `aws sso login`, or profile:"
MAY = "give this user the permissions that the README names under 'On EC2'"
TRIAL, TRIAL_TEXT = "flower-hpc-doctor", "nothing"


def examine_ec2(
    name: str,
    site: Ec2Site,
    federation: str,
    *,
    is_up: bool,
    connect: Callable[[Account], Ec2Cloud] = Ec2Cloud,
) -> Iterator[Finding]:
    """All that can be asked, one finding at a time."""
    if importlib.util.find_spec("boto3") is None:
        yield problem("boto3", "not installed", "pip install 'flower-hpc[ec2]'")
        return
    options = site.batch()
    cloud = connect(options)
    yield (who := identity(cloud))
    if who.state is Health.PROBLEM:
        return
    try:
        base = cloud.template_data(options.launch_template) if options.launch_template else {}
    except LaunchError as error:
        yield problem("launch template", str(error), "launch_template: NAME:VERSION of this region")
        return
    yield (there := image(cloud, options.image or str(base.get("ImageId", ""))))
    yield types(cloud, options)
    if there.state is Health.OK:
        yield dry_run(cloud, options, options.image or str(base.get("ImageId", "")))
    if options.instance_profile:
        yield profile(cloud, options.instance_profile)
    yield keys(cloud, f"{federation}-{name}-doctor")
    yield from left(cloud, federation, name, is_up=is_up)


def identity(cloud: Ec2Cloud) -> Finding:
    """Whether AWS knows who asks, and where."""
    try:
        with cloud.asking("credentials"):
            arn = cloud.client("sts").get_caller_identity()["Arn"]
            region = cloud.client("ec2").meta.region_name
    except LaunchError as error:
        return problem("credentials", str(error), CREDENTIALS)
    return ok("credentials", f"{arn} in {region}")


def image(cloud: Ec2Cloud, name: str) -> Finding:
    """Whether the image is there."""
    if not name:
        return problem("image", "the launch template names none", "image: ami-...")
    try:
        return ok("image", f"{name}, root device {cloud.root_device(name)}")
    except LaunchError as error:
        return problem("image", str(error), "image: one of this region that you may use")


def types(cloud: Ec2Cloud, options: Ec2Options) -> Finding:
    """Whether the region, or the zones, have the types."""
    wanted = [{"Name": "instance-type", "Values": list(options.types)}]
    if options.zones:
        wanted.append({"Name": "location", "Values": list(options.zones)})
    kind = "availability-zone" if options.zones else "region"
    try:
        with cloud.asking("instance types"):
            said = cloud.client("ec2").describe_instance_type_offerings(LocationType=kind, Filters=wanted)
    except LaunchError as error:
        return warning("types", str(error), MAY)
    found = {one["InstanceType"] for one in said["InstanceTypeOfferings"]}
    if missing := [one for one in options.types if one not in found]:
        where = ", ".join(options.zones) or "this region"
        judge = warning if found else problem
        return judge(
            "types", f"not offered in {where}: {', '.join(missing)}", "types: others, or other zones"
        )
    return ok("types", f"{', '.join(options.types)}: offered")


def dry_run(cloud: Ec2Cloud, options: Ec2Options, image: str) -> Finding:
    """What EC2 itself says of such an instance, which it does not start."""
    asked: dict[str, Any] = {"ImageId": image, "InstanceType": options.types[0], "MinCount": 1, "MaxCount": 1}
    if options.subnets:
        asked["SubnetId"] = options.subnets[0]
    if options.security_groups:
        asked["SecurityGroupIds"] = list(options.security_groups)
    if options.market == "spot":
        asked["InstanceMarketOptions"] = {"MarketType": "spot"}
    try:
        with cloud.asking("start an instance"):
            cloud.client("ec2").run_instances(DryRun=True, **asked)
    except LaunchError as error:
        if code_of(error) == "DryRunOperation":
            return ok("dry run", f"EC2 would start a {options.types[0]}, {options.market}")
        if isinstance(error, NoRoom):
            return warning(
                "dry run", str(error), "more types, zones or quota; nodes wait until there is room"
            )
        mend = (
            MAY if "authoriz" in str(error).lower() else "change what the reason names, in the site's options"
        )
        return problem("dry run", str(error), mend)
    return problem("dry run", "EC2 started it for real", "end the newest instance of this account by hand")


def profile(cloud: Ec2Cloud, name: str) -> Finding:
    """Whether there is an instance profile with a role."""
    try:
        with cloud.asking("instance profile"):
            said = cloud.client("iam").get_instance_profile(InstanceProfileName=name.rpartition("/")[2])
    except LaunchError as error:
        if "NoSuchEntity" in code_of(error):
            return problem("instance profile", str(error), "make one as the README shows under 'On EC2'")
        return warning("instance profile", str(error), "iam:GetInstanceProfile lets the doctor look")
    roles = [role["RoleName"] for role in said["InstanceProfile"]["Roles"]]
    if not roles:
        mend = "add a role that may read the site's keys: see 'On EC2' in the README"
        return problem("instance profile", f"{name} has no role: its nodes cannot read their keys", mend)
    return ok("instance profile", f"{name}, role {roles[0]}")


def keys(cloud: Ec2Cloud, owner: str) -> Finding:
    """Whether keys can be written, read and removed."""
    place = f"{cloud.account.keys}, below {owner}"
    try:
        store = cloud.store(owner)
        store.put(TRIAL, TRIAL_TEXT, {})
        try:
            found = store.get(TRIAL)
        finally:
            store.delete([TRIAL])
    except LaunchError as error:
        mend = MAY if isinstance(error, Refused) else "try again in a while"
        return problem("keys", str(error), mend)
    if found != TRIAL_TEXT:
        return problem(
            "keys", f"{place}: what was written is not what is read", "another place: keys: s3://..."
        )
    return ok("keys", "written, read and removed again")
