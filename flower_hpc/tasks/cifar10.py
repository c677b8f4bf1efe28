"""CIFAR-10 (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html), by torchvision's loader."""

import numpy as np
from torch import nn

from ..errors import ConfigError
from .data import download, find
from .images import Images
from .models import cnn, resnet18
from .options import TaskOptions
from .torch_task import TorchTask

FILES = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
SCALE = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))  # mean and deviation of the training set


class Cifar10(TorchTask):
    """Ten classes, 50,000 training and 10,000 test images of 3x32x32; no augmentation."""

    def _build(self) -> nn.Module:
        return self._build_narrow(1.0)

    def _build_narrow(self, width: float) -> nn.Module:
        make = resnet18 if self.options.model == "resnet18" else cnn
        return make(3, 10, width)

    def _load(self, train: bool) -> Images:
        from torchvision.datasets import CIFAR10

        folder = find(self.options.data_dir, "cifar10", FILES)
        if folder is None:
            folder = download("cifar10", FILES, lambda root: CIFAR10(root, download=True))
        # with the archive alone, "download" checks and unpacks it
        unpack = not (folder / FILES[0]).exists()
        try:
            data = CIFAR10(folder, train=train, download=unpack)
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"CIFAR-10 in {folder} is incomplete or damaged: put {' or '.join(FILES)} there anew"
            ) from error
        labels = np.asarray(data.targets, dtype=np.int64)
        return Images(data.data.transpose(0, 3, 1, 2), labels, labels, SCALE)


def create(options: TaskOptions) -> Cifar10:
    """Make the task."""
    return Cifar10(options)
