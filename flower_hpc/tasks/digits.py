"""UCI's handwritten digits, as scikit-learn bundles them: 1797 images of 8x8, no download.

Alpaydin & Kaynak 1998, https://doi.org/10.24432/C50P49.
"""

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
from torch import nn

from ..records import NDArray
from .base import Task
from .data import remember
from .images import Images
from .models import cnn, mlp
from .options import TaskOptions

TEST = 360
SPLIT_SEED = 0  # the split is part of the task: runs of different seeds share their test set


class Digits(Task):
    """Ten classes, 1437 training and 360 test images of 1x8x8, grey levels 0 to 16."""

    def _build(self) -> nn.Module:
        return cnn(1, 10, (16, 32)) if self.options.model == "cnn" else mlp(64, 10)

    def _load(self, train: bool) -> Images:
        data = remember(f"digits-{version('scikit-learn')}", _bundled)
        order = np.random.default_rng(SPLIT_SEED).permutation(len(data["labels"]))
        index = order[TEST:] if train else order[:TEST]
        labels = data["labels"][index].astype(np.int64)
        return Images(data["pixels"][index], labels, labels, ((0.305,), (0.376,)), peak=16)


def _bundled() -> Mapping[str, NDArray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return {"pixels": digits.images[:, None].astype(np.uint8), "labels": digits.target}


def create(options: TaskOptions) -> Digits:
    """Make the task."""
    return Digits(options)
