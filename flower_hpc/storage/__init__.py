"""States on disk: trees of plain values and arrays as files that are whole or not there."""

from .packing import pack, unpack
from .treefile import load_tree, save_tree

__all__ = ["load_tree", "pack", "save_tree", "unpack"]
