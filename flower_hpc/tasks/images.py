"""Labelled images, kept as bytes and scaled a batch at a time."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..records import NDArray


@dataclass(frozen=True)
class Images:
    """A set of images in memory.

    Parameters
    ----------
    pixels : uint8 array, shape (examples, channels, height, width)
        Raw values.
    targets : array, shape (examples,) of int64 or (examples, findings) of float32
        What the model is to say.
    labels : int64 array, shape (examples,)
        What partitioners go by.
    scale : tuple of (mean, std)
        Per channel, in units of ``peak``; a batch is ``(pixels / peak - mean) / std``.
    peak : int
        Largest possible pixel.
    """

    pixels: NDArray
    targets: NDArray
    labels: NDArray
    scale: tuple[tuple[float, ...], tuple[float, ...]]
    peak: int = 255

    roles: NDArray | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pixels)

    def __getitem__(self, index: list[int]) -> tuple[NDArray, NDArray]:
        """Float32 images of shape (batch, channels, height, width), and their targets."""
        mean, std = (np.array(x, np.float32).reshape(1, -1, 1, 1) for x in self.scale)
        images = self.pixels[index].astype(np.float32) / np.float32(self.peak)
        return (images - mean) / std, self.targets[index]

    def select(self, index: NDArray) -> Self:
        """Only these images, copied."""
        return type(self)(
            np.ascontiguousarray(self.pixels[index]),
            self.targets[index],
            self.labels[index],
            self.scale,
            self.peak,
        )
