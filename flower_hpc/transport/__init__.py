"""Ways for messages to travel that are not Flower's own; the only place that touches Flower's internals."""

from .inprocess import InProcessGrid, InProcessNode

__all__ = ["InProcessGrid", "InProcessNode"]
