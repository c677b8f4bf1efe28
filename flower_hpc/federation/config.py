"""federation.yaml: what a federation is, checked field by field.

::

    name: lab                    # a-z, 0-9 and '-'; default "local"
    security: tls                # tls (default) or insecure
    partitions: 4                # of the data; default: the nodes at the first `up`; fixed from then on
    superlink: {host: 127.0.0.1, port: null}   # a loopback address; port null = a free one is found
    sites:
      here:                      # its nodes are named here-0, here-1, ...
        launcher: local          # local = processes of this machine (default)
        nodes: 4
        data_dir: data           # handed to the nodes as `data-dir`; relative to this file
        node_config: {slowdown: 1}             # more scalars for each node's config
        per_node: {here-3: {slowdown: 5}}      # and for single nodes
        env: {OMP_NUM_THREADS: "1"}            # environment variables of the nodes
"""

import ipaddress
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..errors import ConfigError
from ..protocol import NODE_NAME, NUM_PARTITIONS, PARTITION_ID
from .explain import explain
from .yamlfile import read_yaml

Scalar = bool | int | float | str
DATA_DIR = "data-dir"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?")
KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OURS = {
    NODE_NAME: "set by the federation",
    PARTITION_ID: "set by the federation",
    NUM_PARTITIONS: "set by the federation",
    DATA_DIR: "written as the site's data_dir",
}


def check_name(name: str) -> str:
    """Refuse what cannot be a folder, a TOML key and part of a node's name."""
    if not NAME.fullmatch(name):
        raise ValueError("1 to 50 of a-z, 0-9 and '-', not at its ends")
    if name == "default":
        raise ValueError("another word: Flower keeps 'default' for itself")
    return name


def check_scalars(values: dict[str, Any]) -> dict[str, Any]:
    """Refuse what Flower's node-config cannot carry."""
    for key, value in values.items():
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise ValueError(f"a mapping whose keys are letters, digits, '_' and '-' ({key!r} is not)")
        if key in OURS:
            raise ValueError(f"a mapping without {key!r}, which is {OURS[key]}")
        fits = isinstance(value, bool | int | float | str)
        if not fits or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"a mapping to numbers, strings, true or false ({key!r} is not)")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"a mapping to numbers of at most 64 bits ({key!r} is not)")
        if isinstance(value, str) and (not value.isprintable() or {"'", '"'} <= set(value)):
            raise ValueError(f"a mapping to strings of one line, with one kind of quotes ({key!r} is not)")
    return values


def check_env(values: Any) -> Any:
    """Numbers may be written without quotes."""
    if not isinstance(values, Mapping):
        return values
    for key, value in values.items():
        if not isinstance(key, str) or not VARIABLE.fullmatch(key):
            raise ValueError(f"a mapping whose keys are names of variables ({key!r} is not)")
        if isinstance(value, bool) or not isinstance(value, int | float | str) or "\0" in str(value):
            raise ValueError(f"a mapping to strings or numbers ({key!r} is not)")
    return {key: str(value) for key, value in values.items()}


Name = Annotated[str, AfterValidator(check_name)]
Scalars = Annotated[dict[str, Any], AfterValidator(check_scalars)]
Variables = Annotated[dict[str, str], BeforeValidator(check_env)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


MOST_NODES = 1000  # of a site: each is a process, and a slip of the finger should not start a million


class SuperLinkConfig(_Model):
    """Where the SuperLink listens: a loopback address, and a port (default: a free one is found)."""

    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65535)

    @field_validator("host")
    @classmethod
    def _loopback(cls, host: str) -> str:
        # whoever reaches the SuperLink's port can submit runs, that is, execute code as its user
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError("a loopback address, such as 127.0.0.1 or ::1")
        return host


class Site(_Model):
    """Nodes that are started in one way, at one place."""

    launcher: Literal["local"] = "local"
    nodes: int = Field(ge=1, le=MOST_NODES)
    data_dir: str | None = None
    node_config: Scalars = {}
    per_node: dict[str, Scalars] = {}
    env: Variables = {}

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        base = (info.context or {}).get("base", Path.cwd())
        path = str((base / Path(value).expanduser()).resolve())
        check_scalars({"path": path})
        return path


class FederationConfig(_Model):
    """A SuperLink and the sites whose nodes join it."""

    name: Name = "local"
    security: Literal["tls", "insecure"] = "tls"
    partitions: int | None = Field(default=None, ge=1)
    strategy: str | dict[str, Any] | None = None
    """For runs that name none: a spec, or a mapping with ``name`` and settings; the strategies judge it."""
    compression: Any = None
    """For runs whose strategy names none: a codec, or a mapping of the parameters of ``Compression``."""
    superlink: SuperLinkConfig = SuperLinkConfig()
    sites: dict[Name, Site] = Field(min_length=1)

    @field_validator("compression")
    @classmethod
    def _codec_or_mapping(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, str | dict):
            raise ValueError("a codec or a mapping")
        return value

    @property
    def counts(self) -> dict[str, int]:
        """How many nodes each site has."""
        return {name: site.nodes for name, site in self.sites.items()}

    @model_validator(mode="after")
    def _consistent(self) -> "FederationConfig":
        total = sum(self.counts.values())
        if self.partitions is not None and total > self.partitions:
            raise ValueError(f"partitions: got {self.partitions}, must be at least the {total} nodes in all")
        for name, site in self.sites.items():
            for node in site.per_node:
                if not re.fullmatch(rf"{re.escape(name)}-(0|[1-9][0-9]*)", node):
                    raise ValueError(
                        f"sites.{name}.per_node: got {node!r}, must be a node's name: {name}-0, {name}-1, ..."
                    )
        return self

    @classmethod
    def parse(cls, data: Any, source: str, base: Path | None = None) -> "FederationConfig":
        """Check ``data``; relative folders start at ``base`` (default: here).

        Raises
        ------
        ConfigError
            One line: ``source``, the path of the field, its value, and what is allowed.
        """
        try:
            return cls.model_validate(data, context={"base": base or Path.cwd()})
        except ValidationError as error:
            raise ConfigError(f"{source}: {explain(error, cls)}") from error

    @classmethod
    def load(cls, path: Path) -> "FederationConfig":
        """Read a federation.yaml; ConfigError in one line for whatever is wrong with it."""
        return cls.parse(read_yaml(path), str(path), path.resolve().parent)
