"""The model and each node's examples: 10 classes of points around centres that all nodes share."""

import torch
from torch import nn

CLASSES, FEATURES, EXAMPLES = 10, 32, 512


def build() -> nn.Module:
    """The same at every call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, CLASSES))


def examples(partition: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of a node."""
    centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(1))
    own = torch.Generator().manual_seed(100 + partition)
    labels = torch.randint(CLASSES, (EXAMPLES,), generator=own)
    return centres[labels] + torch.randn(EXAMPLES, FEATURES, generator=own), labels
