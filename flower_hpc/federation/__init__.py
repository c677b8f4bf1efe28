"""From a federation.yaml to a running federation, and back to nothing."""

from .config import FederationConfig, GatewayConfig, Security, SuperLinkConfig
from .federation import Federation
from .sites import Site, SlurmSite
from .status import NodeState, NodeStatus, State, Status, SuperLinkStatus

__all__ = [
    "Federation",
    "FederationConfig",
    "GatewayConfig",
    "NodeState",
    "NodeStatus",
    "Security",
    "Site",
    "SlurmSite",
    "State",
    "Status",
    "SuperLinkConfig",
    "SuperLinkStatus",
]
