"""What a site asks of EC2; touches nothing."""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ... import __version__
from ...errors import ConfigError

ZONE = r"[a-z]{2}(-[a-z0-9]+)+[a-z]"
RULES: dict[str, tuple[str, str]] = {
    "region": (r"[a-z]{2}(-[a-z]+)+-\d{1,2}", "a region such as eu-central-1"),
    "profile": (r"[^\s\[\]]{1,100}", "a profile of ~/.aws/config"),
    "endpoint_url": (r"https?://[^\s/]+(/\S*)?", "an address such as https://ec2.example.org"),
    "launch_template": (
        r"(lt-[0-9a-f]{8,17}|[A-Za-z0-9().\-/_]{3,128})(:(\d{1,5}|\$Latest|\$Default))?",
        "a name or id, perhaps with :VERSION",
    ),
    "image": (
        r"ami-[0-9a-f]{8,17}|resolve:ssm:[A-Za-z0-9_.\-/:]{1,1000}",
        "ami-... or resolve:ssm:PARAMETER",
    ),
    "types": (r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "instance types such as g5.xlarge"),
    "zones": (ZONE, "availability zones such as eu-central-1a"),
    "subnets": (r"subnet-[0-9a-f]{8,17}", "ids such as subnet-0123456789abcdef0"),
    "security_groups": (r"sg-[0-9a-f]{8,17}", "ids such as sg-0123456789abcdef0"),
    "instance_profile": (
        r"[\w+=,.@-]{1,128}|arn:aws[\w-]*:iam::\d{12}:instance-profile/[\w+=,.@/-]{1,512}",
        "a name or ARN",
    ),
    "key_name": (r"[!-~]([ -~]{0,253}[!-~])?", "the name of a key pair"),
    "market": (r"spot|on-demand", "one of: spot, on-demand"),
    "keys": (
        r"ssm|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.\-]+)*/?",
        "ssm, or s3://BUCKET/PREFIX",
    ),
    "python": (r"/[^\s\x00-\x1f]+", "an absolute path on the image"),
}
"""By field: what its text, or each of its texts, must match, and that in words."""
NUMBERS: dict[str, tuple[float, float, str]] = {
    "max_price": (0.0001, 1000, "US dollars an hour, above 0 and at most 1000"),
    "disk_gb": (1, 16384, "an integer from 1 to 16384"),
    "max_hours": (1, 8760, "an integer from 1 to 8760"),
    "patience_min": (5, 1440, "an integer from 5 to 1440"),
    "grace_s": (5, 3600, "an integer from 5 to 3600"),
}
TAG = re.compile(r"(?!aws:|flower-hpc:)[A-Za-z0-9_.:=+@-]{1,127}")
TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,255}")
PACKAGE = f"flower-hpc[ec2,tasks]=={__version__}"


@dataclass(frozen=True, kw_only=True)
class Account:
    """Where in AWS.

    Parameters
    ----------
    region, profile, endpoint_url : str, optional
        As in ~/.aws/config; default: what that, or the environment, says.
    keys : str
        Where keys travel: ``ssm`` (default), or ``s3://BUCKET/PREFIX``.
    """

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None
    keys: str = "ssm"

    def __post_init__(self) -> None:
        for each in fields(self):
            if wrong := why_not(each.name, value := getattr(self, each.name)):
                raise ConfigError(f"{each.name} must be {wrong}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Ec2Options(Account):
    """What a site asks of EC2, beside the account.

    Parameters
    ----------
    launch_template : str, optional
        ``NAME`` or ``ID``, perhaps ``:VERSION``: what is not said here is as it says, but for its user data
        and market. Default none.
    image : str, optional
        ``ami-...``, or ``resolve:ssm:PARAMETER``. Needed without a launch template.
    types : tuple of str
        Instance types, the best first; spot takes what has the most capacity. Default ``g4dn.xlarge``.
    zones, subnets : tuple of str
        Where; default: the region's default network. One of the two.
    security_groups : tuple of str
        Default: the network's own. Nodes call out and are never called.
    instance_profile : str, optional
        Whose role reads the site's keys. Needed without a launch template.
    key_name : str, optional
        For ssh; default none.
    market : {"spot", "on-demand"}
        Default ``spot``.
    max_price : float, optional
        US dollars an hour for spot; default: the on-demand price.
    disk_gb : int, optional
        Of the root volume, which is encrypted and goes with the instance. Default: the image's own.
    setup : tuple of str
        Lines of bash, as root, before the node is installed; default none.
    python : str, optional
        A Python on the image that has flower-hpc. Default: ``package`` is installed into a new environment.
    package : str
        What pip installs; default this version with the extras ec2 and tasks.
    tags : mapping of str to str
        More tags; default none.
    max_hours : int, optional
        An instance ends itself after so many; default: none do.
    patience_min : int
        It ends itself, too, when the SuperLink was out of reach for so many minutes; default 60.
    grace_s : int
        Between being asked to leave and being killed; default 60.
    """

    launch_template: str | None = None
    image: str | None = None
    types: tuple[str, ...] = ("g4dn.xlarge",)
    zones: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    instance_profile: str | None = None
    key_name: str | None = None
    market: str = "spot"
    max_price: float | None = None
    disk_gb: int | None = None
    setup: tuple[str, ...] = ()
    python: str | None = None
    package: str = PACKAGE
    tags: Mapping[str, str] = field(default_factory=dict)
    max_hours: int | None = None
    patience_min: int = 60
    grace_s: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.types:
            raise ConfigError("types must be at least one instance type, got ()")
        if self.zones and self.subnets:
            raise ConfigError(f"zones must be left out where there are subnets, got {list(self.zones)}")
        if self.max_price is not None and self.market != "spot":
            words = "left out where market is on-demand: it is what spot may cost at most"
            raise ConfigError(f"max_price must be {words}, got {self.max_price:g}")
        if self.launch_template is None:
            for name in ("image", "instance_profile"):
                if getattr(self, name) is None:
                    raise ConfigError(f"{name} must be given where there is no launch_template, got None")


def why_not(name: str, value: Any) -> str:
    """What a field must be, where ``value`` is not that; empty where it is."""
    if value is None:
        return ""
    if name in RULES:
        pattern, words = RULES[name]
        texts: Iterable[Any] = (value,) if isinstance(value, str) else value
        return "" if all(isinstance(x, str) and re.fullmatch(pattern, x) for x in texts) else words
    if name in NUMBERS:
        low, high, words = NUMBERS[name]
        kinds = (int, float) if name == "max_price" else int
        fits = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
        return "" if fits else words
    if name == "tags":
        fits = all(
            isinstance(v, str) and TAG.fullmatch(k) and TAG_VALUE.fullmatch(v) for k, v in value.items()
        )
        return (
            ""
            if fits
            else "a mapping of letters, digits and _.:=+@-, to text; aws: and flower-hpc: are taken"
        )
    if name == "package":
        return "" if _words(value) else "what pip installs, on one line"
    return "" if all(isinstance(line, str) and "\0" not in line for line in value) else "lines of bash"


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text) if text.isprintable() else []
    except ValueError:
        return []
