"""From a federation.yaml to a running federation, and back to nothing."""

from .config import FederationConfig, GatewayConfig, Security
from .federation import Federation
from .link_config import SlurmSuperLink, SuperLinkConfig
from .site import Site
from .sites import PsijSite, SlurmSite
from .status import NodeState, NodeStatus, State, Status, SuperLinkStatus

__all__ = [
    "Federation",
    "FederationConfig",
    "GatewayConfig",
    "NodeState",
    "NodeStatus",
    "PsijSite",
    "Security",
    "Site",
    "SlurmSite",
    "SlurmSuperLink",
    "State",
    "Status",
    "SuperLinkConfig",
    "SuperLinkStatus",
]
