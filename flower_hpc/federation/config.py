"""federation.yaml: what a federation is, checked field by field.

::

    name: lab                    # a-z, 0-9 and '-'; default "local"
    security: tls                # tls (default), insecure, or a mapping: see Security
    partitions: 4                # of the data; default: the most nodes there can be; fixed at the first `up`
    superlink: {host: 127.0.0.1, port: null}   # a loopback address; port null = a free one is found;
                                 # or a job: {launcher: slurm, partition: cpu, time: 1-00:00:00, ...}
    gateway: {host: 0.0.0.0, port: null, address: login1}   # for nodes beyond this machine
    sites:
      here:                      # its nodes are named here-0, here-1, ...
        launcher: local          # local = processes of this machine (default); others: see sites.py
        nodes: 4
        data_dir: data           # handed to the nodes as `data-dir`; relative to this file
        node_config: {slowdown: 1}             # more scalars for each node's config
        per_node: {here-3: {slowdown: 5}}      # and for single nodes
        env: {OMP_NUM_THREADS: "1"}            # environment variables of the nodes
    max_usd_per_hour: 20         # and autoscale, burst, usd_per_hour of sites: see elastic_config.py
"""

import ipaddress
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from ..errors import ConfigError
from .elastic_config import Amount, check_sites, is_elastic, most_of
from .explain import explain
from .fields import HOST, Name, Strict
from .handed_site import HandedSite
from .link_config import AnySuperLink, KubernetesSuperLink, SlurmSuperLink, SuperLinkConfig
from .site import CloudSite, Site
from .sites import AnySite, SlurmSite
from .yamlfile import read_yaml


class GatewayConfig(Strict):
    """The door for nodes beyond this machine: where it listens, and the address that those nodes know."""

    host: str = "0.0.0.0"
    port: int | None = Field(default=None, ge=1, le=65535)
    address: str | None = None
    """Default: this machine's name."""

    @field_validator("host")
    @classmethod
    def _an_address(cls, host: str) -> str:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError("an IP address of this machine, such as 0.0.0.0") from None
        return host

    @field_validator("address")
    @classmethod
    def _a_host(cls, address: str | None) -> str | None:
        if address is not None and not re.fullmatch(HOST, address):
            raise ValueError("a host name or an IP address")
        return address


class Security(Strict):
    """How the federation is protected.

    Parameters
    ----------
    mode : {"tls", "insecure"}
        TLS and keys of nodes, or neither, for tests. Default ``tls``.
    network : {"auto", "private", "host"}
        Where the SuperLink and its ServerApps live: ``private`` is a network of their own, in which nobody
        else of this host can reach them and from which they reach nothing else. Default ``auto``: private
        where other people use this host or nodes come from beyond it, and where the system allows it.
    shared_host : {"refuse", "accept"}
        What to do where other people use this host and no private network can be had. Default ``refuse``.
    """

    mode: Literal["tls", "insecure"] = "tls"
    network: Literal["auto", "private", "host"] = "auto"
    shared_host: Literal["refuse", "accept"] = "refuse"


class FederationConfig(Strict):
    """A SuperLink and the sites whose nodes join it."""

    name: Name = "local"
    security: Security = Security()
    partitions: int | None = Field(default=None, ge=1)
    strategy: str | dict[str, Any] | None = None
    """For runs that name none: a spec, or a mapping with ``name`` and settings; the strategies judge it."""
    compression: Any = None
    """For runs whose strategy names none: a codec, or a mapping of the parameters of ``Compression``."""
    superlink: AnySuperLink = SuperLinkConfig()
    gateway: GatewayConfig = GatewayConfig()
    max_usd_per_hour: Amount | None = None
    """Nothing that costs more is started by itself, and no file or `scale` may ask for more."""
    sites: dict[Name, AnySite] = Field(min_length=1)

    @field_validator("security", mode="before")
    @classmethod
    def _a_word(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("tls", "insecure"):
            raise ValueError("one of: tls, insecure; or a mapping of mode, network and shared_host")
        return {"mode": value} if isinstance(value, str) else value

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

    @property
    def most(self) -> dict[str, int]:
        """How many nodes each site may have, with what autoscale and burst add."""
        return most_of(self.sites)

    @property
    def elastic(self) -> bool:
        """Whether numbers of nodes change by themselves."""
        return is_elastic(self.sites)

    @property
    def tls(self) -> bool:
        """Whether there are certificates and keys of nodes."""
        return self.security.mode == "tls"

    @property
    def remote(self) -> bool:
        """Whether nodes run beyond this machine."""
        return any(site.remote for site in self.sites.values())

    @property
    def link_elsewhere(self) -> bool:
        """Whether the SuperLink is a job of a batch system."""
        return isinstance(self.superlink, SlurmSuperLink)

    @property
    def in_cluster(self) -> bool:
        """Whether the SuperLink is a pod, with its controller in it."""
        return isinstance(self.superlink, KubernetesSuperLink)

    @model_validator(mode="after")
    def _consistent(self) -> "FederationConfig":
        check_sites(self.sites, self.max_usd_per_hour)
        total = sum(self.counts.values())
        if self.partitions is not None and total > self.partitions:
            raise ValueError(f"partitions: got {self.partitions}, must be at least the {total} nodes in all")
        if not self.tls and any(isinstance(site, SlurmSite) for site in self.sites.values()):
            raise ValueError("security: got 'insecure', must be tls where there is a Slurm site")
        if not self.tls and any(isinstance(site, CloudSite) for site in self.sites.values()):
            raise ValueError("security: got 'insecure', must be tls where a site is in a cloud")
        if not self.tls and self.link_elsewhere:
            raise ValueError("security: got 'insecure', must be tls where the SuperLink is a Slurm job")
        for name, site in self.sites.items():
            self._reached(name, site)
            for node in site.per_node:
                if not re.fullmatch(rf"{re.escape(name)}-(0|[1-9][0-9]*)", node):
                    raise ValueError(
                        f"sites.{name}.per_node: got {node!r}, must be a node's name: {name}-0, {name}-1, ..."
                    )
        return self

    def _reached(self, name: str, site: Site) -> None:
        # such a job is now on one host and now on another, which nodes of other networks cannot follow
        if isinstance(site, CloudSite) and self.link_elsewhere:
            raise ValueError(
                f"superlink.launcher: got 'slurm', must be local where there are {site.launcher} sites: the "
                f"nodes of sites.{name} look for the gateway at one address"
            )
        if isinstance(site, CloudSite) and site.via is None and self.gateway.address is None:
            raise ValueError(
                f"sites.{name}.via: is missing, must be the HOST:PORT at which its nodes reach the gateway "
                "here (or gateway: {address: HOST, port: PORT} for all sites)"
            )
        if isinstance(site, HandedSite):
            self._handed(name)

    def _handed(self, name: str) -> None:
        # what is handed over names the gateway, and nobody here can change it afterwards
        if self.gateway.port is None and not self.in_cluster:
            raise ValueError(
                f"gateway.port: is missing, must be an integer from 1 to 65535: others start the nodes of "
                f"sites.{name}, and their bundle names it"
            )
        for home, site in self.sites.items():
            if site.burst is not None and site.burst.to == name:
                raise ValueError(
                    f"sites.{home}.burst.to: got {name!r}, must be a site whose nodes are started from here"
                )

    @classmethod
    def parse(cls, data: Any, source: str, base: Path | None = None) -> "FederationConfig":
        """Check ``data``; relative folders start at ``base`` (default: here).

        Raises
        ------
        ConfigError
            One line: ``source``, the path of the field, its value, and what is allowed.
        """
        if data is None:
            raise ConfigError(f"{source}: is empty, must be a mapping")
        try:
            return cls.model_validate(data, context={"base": base or Path.cwd()})
        except ValidationError as error:
            raise ConfigError(f"{source}: {explain(error, cls)}") from error

    @classmethod
    def load(cls, path: Path) -> "FederationConfig":
        """Read a federation.yaml; ConfigError in one line for whatever is wrong with it."""
        return cls.parse(read_yaml(path), str(path), path.resolve().parent)
