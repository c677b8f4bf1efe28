"""The loop's log."""

import logging

LOG = logging.getLogger("flwr.hpc")  # below Flower's own logger: `flwr log` shows it
