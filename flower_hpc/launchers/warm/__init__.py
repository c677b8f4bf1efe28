"""Warm clients: a SuperNode's messages are answered by forks of a process that has imported what they need.

Flower starts a new ``flwr-clientapp`` for every message, which imports flwr, torch and the app: seconds,
before the first training step. Here another program of that name comes first on the SuperExec's PATH. It
hands its arguments, environment and files to a server of the node (:mod:`.server`), which forks: one fresh
process for each message, as Flower has it, but one that starts where the imports are done. What the server
imports beside Flower it learns from the first message: of the packages that it is allowed, those that the
app used. The app's own modules it never imports.

Whatever that program does not know, it leaves to Flower's own: other options, a server that is gone.
"""

from .start import PACKAGES, WARM_ENV, start

__all__ = ["PACKAGES", "WARM_ENV", "start"]
