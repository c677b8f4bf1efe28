"""From a federation.yaml to a running federation, and back to nothing."""

from .config import FederationConfig, Site, SuperLinkConfig
from .federation import Federation
from .status import NodeState, NodeStatus, State, Status, SuperLinkStatus

__all__ = [
    "Federation",
    "FederationConfig",
    "NodeState",
    "NodeStatus",
    "Site",
    "State",
    "Status",
    "SuperLinkConfig",
    "SuperLinkStatus",
]
