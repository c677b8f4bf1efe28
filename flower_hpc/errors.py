"""Everything this package raises on purpose.

FlowerHpcError             exit code 1
├── ConfigError            a value that the user gave cannot work (exit code 2)
├── FederationError        a federation is not up, or did not come up, or cannot be reached
│   └── LaunchError        a launcher could not start or lost a process or job
│       └── JobFailed      a batch job ended without its result
│           └── JobLost    and not by its own fault: preempted, or its node went; another may well succeed
├── RunError               a run ended without its result
└── ReplyError             a node's reply cannot be used; the round goes on without it
"""


class FlowerHpcError(Exception):
    """Catch this to catch us; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class ConfigError(FlowerHpcError, ValueError):
    """A value that the user gave: says what, which value, and what is allowed."""

    exit_code = 2


class FederationError(FlowerHpcError):
    """The federation is not in the state that the command needs."""


class LaunchError(FederationError):
    """A launcher could not start, or lost, a process or job."""


class JobFailed(LaunchError):
    """A batch job ended without its result; says which, and the scheduler's word for it."""


class JobLost(JobFailed):
    """It was preempted, or went with its node: the same job may well succeed when submitted again."""


class RunError(FlowerHpcError):
    """A run ended without its result."""


class ReplyError(FlowerHpcError):
    """A node's reply is unusable: refused, logged, counted."""
