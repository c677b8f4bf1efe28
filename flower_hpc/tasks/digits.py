"""UCI's handwritten digits, as scikit-learn bundles them: 1797 images of 8x8, no download.

Alpaydin & Kaynak 1998, https://doi.org/10.24432/C50P49.
"""

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np

from ..records import NDArray
from .data import remember
from .images import Images
from .options import TaskOptions
from .perceptron import PerceptronTask

PER_CLASS = 140


class Digits(PerceptronTask):
    """Ten classes, images of 1x8x8, grey levels 0 to 16.

    The first 140 images of each class are for training (1400), the other 397 for testing. Equal classes
    let shards end where classes end; the split is part of the task, so runs of different seeds share it.
    """

    inputs, classes = 64, 10

    def _load(self, train: bool) -> Images:
        data = remember(f"digits-{version('scikit-learn')}", _bundled)
        of_class = [np.flatnonzero(data["labels"] == c) for c in range(10)]
        part = slice(PER_CLASS) if train else slice(PER_CLASS, None)
        index = np.sort(np.concatenate([where[part] for where in of_class]))
        labels = data["labels"][index].astype(np.int64)
        return Images(data["pixels"][index], labels, labels, ((0.305,), (0.376,)), peak=16)


def _bundled() -> Mapping[str, NDArray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return {"pixels": digits.images[:, None].astype(np.uint8), "labels": digits.target}


def create(options: TaskOptions) -> Digits:
    """Make the task."""
    return Digits(options)
