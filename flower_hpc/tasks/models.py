"""Small models, with GroupNorm (Wu & He 2018, https://arxiv.org/abs/1803.08494) where they are ours.

Batch statistics of skewed nodes do not average (Hsieh et al. 2020, https://arxiv.org/abs/1910.00189).
"""

from torch import Tensor, nn


def cnn(channels: int, classes: int, widths: tuple[int, ...] = (32, 64, 128)) -> nn.Module:
    """Blocks of 3x3 convolution, GroupNorm, ReLU and halving, then the mean over what is left.

    Takes (batch, channels, height, width) with sides of at least ``2 ** len(widths)`` to
    (batch, classes). About 95,000 parameters with the default widths.
    """
    layers: list[nn.Module] = []
    for width in widths:
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def resnet18(channels: int, classes: int) -> nn.Module:
    """ResNet-18 (He et al. 2016, https://arxiv.org/abs/1512.03385) for sides of 28 to 64 pixels.

    torchvision's, but with a 3x3 first convolution of stride 1 and no pooling after it, as the paper has
    for CIFAR-10. Keeps its BatchNorm. About 11.2 million parameters.
    """
    from torchvision.models import resnet18 as make

    model: nn.Module = make(weights=None, num_classes=classes)
    model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


class CharLSTM(nn.Module):
    """LEAF's model for Shakespeare (Caldas et al. 2018, https://arxiv.org/abs/1812.01097).

    Embedding of 8, two LSTM layers of 256, the last step's state to the next character. Takes int64
    (batch, steps) to (batch, characters). About 820,000 parameters with 80 characters.
    """

    def __init__(self, characters: int, embedding: int = 8, hidden: int = 256) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, embedding)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=2, batch_first=True)
        self.out = nn.Linear(hidden, characters)

    def forward(self, text: Tensor) -> Tensor:
        """Logits of the character that follows ``text``."""
        states, _ = self.lstm(self.embed(text))
        logits: Tensor = self.out(states[:, -1])
        return logits
