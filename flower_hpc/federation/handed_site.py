"""A site whose nodes others start: at a hospital, say, whose hosts nobody from here may enter.

::

    gateway: {address: fl.example.org, port: 8443}   # both must be said: what is handed over names them
    sites:
      hospital:
        launcher: handed
        nodes: 2
        data_dir: /data                # as the nodes' hosts have it
        via: gate.example.org:443      # where its nodes reach the gateway, if not at its address
        node_config: {modality: ct}    # and per_node, env, network, grace_s, usd_per_hour
"""

from typing import Literal, Self

from pydantic import ValidationInfo, field_validator, model_validator

from .site import CloudSite


class HandedSite(CloudSite):
    """Nodes that have names, keys and partitions, and are not started from here."""

    launcher: Literal["handed"]  # type: ignore[assignment]

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not value.startswith("/"):
            raise ValueError("an absolute path where the nodes run")
        return value

    @model_validator(mode="after")
    def _not_ours_to_start(self) -> Self:
        for name in ("autoscale", "burst"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} must be left out where others start the nodes, got a mapping")
        return self
