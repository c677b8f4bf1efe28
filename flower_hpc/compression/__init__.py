"""Updates on the wire: codecs, and the mod that sends updates in place of weights."""

from .codec import Codec, Identity, pack, unpack
from .mod import SendUpdates

__all__ = ["Codec", "Identity", "SendUpdates", "pack", "unpack"]
