"""Updates on the wire: codecs, the mod that compresses updates, and what a node keeps of them."""

from .bounded import ErrorBounded
from .casts import BFloat16, Float16
from .codec import Chain, Codec, Identity, Raw
from .lossless import Shuffle, Zstd
from .mod import CompressUpdates
from .options import Compression
from .quantize import Int4, Int8
from .sparsify import RandomK, TopK
from .wire import CODECS, pack, parse, unpack

__all__ = [
    "CODECS",
    "BFloat16",
    "Chain",
    "Codec",
    "CompressUpdates",
    "Compression",
    "ErrorBounded",
    "Float16",
    "Identity",
    "Int4",
    "Int8",
    "RandomK",
    "Raw",
    "Shuffle",
    "TopK",
    "Zstd",
    "pack",
    "parse",
    "unpack",
]
