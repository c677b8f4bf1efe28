"""Small models, with GroupNorm (Wu & He 2018, https://arxiv.org/abs/1803.08494) where they are ours.

Batch statistics of skewed nodes do not average (Hsieh et al. 2020, https://arxiv.org/abs/1910.00189).
``width``, in (0, 1], is the share of the units of each hidden layer; inputs and outputs stay.
"""

from torch import Tensor, nn

from .base import units

GROUPS = 8


def cnn(
    channels: int, classes: int, width: float = 1.0, widths: tuple[int, ...] = (32, 64, 128)
) -> nn.Module:
    """Blocks of 3x3 convolution, GroupNorm, ReLU and halving, then the mean over what is left.

    Takes (batch, channels, height, width) with sides of at least ``2 ** len(widths)`` to
    (batch, classes). About 95,000 parameters with the default widths.
    """
    layers: list[nn.Module] = []
    for full in widths:
        size = units(full, width)
        layers += [
            nn.Conv2d(channels, size, 3, padding=1, bias=False),
            nn.GroupNorm(groups(size, full // GROUPS), size),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = size
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def groups(channels: int, largest: int) -> int:
    """The fewest equal groups of at most ``largest`` channels.

    Groups of the full model's size, rather than as many, leave the first ones of a narrower model what they
    are in the full one: a channel is normalised with the same others.
    """
    return next(n for n in range(-(-channels // largest), channels + 1) if channels % n == 0)


def resnet18(channels: int, classes: int, width: float = 1.0) -> nn.Module:
    """ResNet-18 (He et al. 2016, https://arxiv.org/abs/1512.03385) for sides of 28 to 64 pixels.

    torchvision's, but with a 3x3 first convolution of stride 1 and no pooling after it, as the paper has
    for CIFAR-10. Keeps its BatchNorm. About 11.2 million parameters.
    """
    from torchvision.models import resnet18 as make

    model: nn.Module = make(weights=None, num_classes=classes)
    sizes = [units(full, width) for full in (64, 128, 256, 512)]
    if width < 1:  # torchvision has no smaller ones
        model.bn1, model.fc = nn.BatchNorm2d(sizes[0]), nn.Linear(sizes[3], classes)
        for i, size in enumerate(sizes):
            setattr(model, f"layer{i + 1}", _stage(sizes[max(0, i - 1)], size, stride=2 if i else 1))
    model.conv1 = nn.Conv2d(channels, sizes[0], 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def _stage(before: int, size: int, stride: int) -> nn.Module:
    """Two blocks, initialised as torchvision's."""
    from torchvision.models.resnet import BasicBlock

    project = nn.Conv2d(before, size, 1, stride, bias=False)
    beside = nn.Sequential(project, nn.BatchNorm2d(size)) if stride > 1 else None
    stage = nn.Sequential(BasicBlock(before, size, stride, beside), BasicBlock(size, size))
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return stage


class CharLSTM(nn.Module):
    """LEAF's model for Shakespeare (Caldas et al. 2018, https://arxiv.org/abs/1812.01097).

    Embedding of 8, two LSTM layers of 256, the last step's state to the next character. Takes int64
    (batch, steps) to (batch, characters). About 820,000 parameters with 80 characters.
    """

    def __init__(self, characters: int, embedding: int = 8, hidden: int = 256, width: float = 1.0) -> None:
        super().__init__()
        embedding, hidden = units(embedding, width), units(hidden, width)
        self.embed = nn.Embedding(characters, embedding)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=2, batch_first=True)
        self.out = nn.Linear(hidden, characters)

    def forward(self, text: Tensor) -> Tensor:
        """Logits of the character that follows ``text``."""
        states, _ = self.lstm(self.embed(text))
        logits: Tensor = self.out(states[:, -1])
        return logits
