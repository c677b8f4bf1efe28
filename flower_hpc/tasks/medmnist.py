"""MedMNIST v2's 2D sets at 28x28 (Yang et al. 2023, https://doi.org/10.1038/s41597-022-01721-8)."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..records import NDArray
from .data import download, find, missing
from .images import Images
from .models import cnn, resnet18
from .options import TaskOptions
from .torch_task import MANY_OF_MANY, ONE_OF_MANY, TorchTask


class MedMNIST(TorchTask):
    """One 2D set, grey or RGB, by its flag; its official training and test splits.

    Two-class and ordinal sets are trained as classes that exclude each other, as the paper's baselines
    are. In the multi-label set (chestmnist) each finding is its own yes or no; for partitioners the label
    of an image is then its first finding, or the number of findings where it has none.
    """

    def __init__(self, options: TaskOptions) -> None:
        super().__init__(options)
        from medmnist import INFO

        self.info: dict[str, Any] = INFO[options.dataset]
        self.multi = str(self.info["task"]).startswith("multi-label")
        self.objective = MANY_OF_MANY if self.multi else ONE_OF_MANY

    def _build(self) -> nn.Module:
        return self._build_narrow(1.0)

    def _build_narrow(self, width: float) -> nn.Module:
        make = resnet18 if self.options.model == "resnet18" else cnn
        return make(self.info["n_channels"], len(self.info["label"]), width)

    def _load(self, train: bool) -> Images:
        file = f"{self.options.dataset}.npz"
        folder = find(self.options.data_dir, "medmnist", [file])
        if folder is None:
            folder = download("medmnist", [file], lambda root: self._open("train", root, True))
        try:
            data = self._open("train" if train else "test", folder)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise missing([file], folder, f"{type(error).__name__}: {error}") from error
        pixels = data.imgs[:, None] if data.imgs.ndim == 3 else data.imgs.transpose(0, 3, 1, 2)
        labels = first_finding(data.labels) if self.multi else data.labels[:, 0].astype(np.int64)
        targets = data.labels.astype(np.float32) if self.multi else labels
        half = (0.5,) * pixels.shape[1]
        return Images(pixels, targets, labels, (half, half))

    def _open(self, split: str, root: Path, fetch: bool = False) -> Any:
        import medmnist

        dataset = getattr(medmnist, self.info["python_class"])
        return dataset(split=split, root=str(root), download=fetch)


def first_finding(findings: NDArray) -> NDArray:
    """Position of the first 1 in each row, or the row's length: (n, findings) to int64 (n,)."""
    positive = findings > 0
    first = np.where(positive.any(1), positive.argmax(1), findings.shape[1])
    labels: NDArray = first.astype(np.int64)
    return labels


def create(options: TaskOptions) -> MedMNIST:
    """Make the task."""
    return MedMNIST(options)
