"""FedAvg (McMahan et al. 2017, https://arxiv.org/abs/1602.05629) as a preset of the loop."""

from .hybrid import HybridStrategy


class FedAvg(HybridStrategy):
    """Wait for all, weigh by examples: :class:`HybridStrategy` as it is.

    Unlike Flower's own it keeps dtypes, holds one model however many nodes reply, does not wait for nodes
    that have gone, and ends with an error when nobody replies.
    """
