"""States on disk: trees of plain values and arrays as files that are whole or not there."""

from .names import file_name
from .packing import pack, unpack
from .treefile import load_tree, save_tree

__all__ = ["file_name", "load_tree", "pack", "save_tree", "unpack"]
