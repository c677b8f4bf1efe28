"""Every key that server and clients agree on, named once.

A train message carries our keys in the ConfigRecord that it has anyway (Flower's clipping mods refuse a
second one). A reply that is an update carries a ConfigRecord named :data:`MARK`; a reply without it holds
full weights, so clients that know nothing of this package take part unchanged.
"""

from dataclasses import dataclass

from flwr.app import ConfigRecord, Message

from .errors import ConfigError
from .records import records_of

# Flower's own conventions, which its strategies and apps share
ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
NUM_EXAMPLES = "num-examples"
SERVER_ROUND = "server-round"
PROXIMAL_MU = "proximal-mu"

# metrics of a train reply; only the number of examples is needed, the rest helps to choose and to weigh
TRAIN_LOSS = "train-loss"  # mean over the examples seen
LOSS_RMS = "train-loss-rms"  # root of the mean squared loss of an example (Oort)
NUM_STEPS = "num-steps"  # optimizer steps really done
EFFECTIVE_STEPS = "effective-steps"  # the same, counting what momentum adds (FedNova's norm of a_i)
TRAIN_S = "train-s"  # seconds that they took
QUEUE_S = "queue-s"  # seconds in a batch queue before them
JOB_RETRIES = "job-retries"  # batch jobs that were lost before the one that answered
SITE_CLIENTS = "site-clients"  # of a site that answers as one node: how many of its clients are in the reply
SITE_FAILED = "site-failed"  # and how many are not
GRADIENT_VARIANCE = "gradient-variance"  # of the batch gradients around their mean, summed over parameters

# in a train message's ConfigRecord
RUN = "flower-hpc.run"
RUN_KEY = "flower-hpc.run-key"  # under which a node keeps what it keeps; the run's name, if it has one
VERSION = "flower-hpc.version"
DEADLINE_S = "flower-hpc.deadline-s"
REPLY_AS = "flower-hpc.reply-as"
RECEIVED_AT = "flower-hpc.received-at"  # written on the node, by the budget mod
LOCAL_STEPS = "flower-hpc.local-steps"  # do exactly so many optimizer steps
MAX_STEPS = "flower-hpc.max-steps"  # do your epochs, but at most so many steps
LR_FACTOR = "flower-hpc.lr-factor"  # multiply the learning rate
WANT_PROFILE = "flower-hpc.want-profile"  # report the node's resources with the reply
WANT_VARIANCE = "flower-hpc.want-variance"  # report gradient-variance
CONTROL = "flower-hpc.control"  # SCAFFOLD's control variate, bytes; in the reply's mark: its change
COMPRESSION = "flower-hpc.compression"  # how to send the update: JSON
TICKET = "flower-hpc.ticket"  # of this message; in the reply's mark: of the update
RECEIVED = "flower-hpc.received"  # tickets of the node's updates that are part of a model
WAITING = "flower-hpc.waiting"  # tickets of those that wait to be
DELTA_FROM = "flower-hpc.delta-from"  # the arrays are changes since this version, named "<version>/<array>"
KEEP_MODEL = "flower-hpc.keep-model"  # keep the model, for the next message's change
WEIGHT_KEY = "flower-hpc.weight-key"  # the metric that weighs a reply, where it is not num-examples
NORMALISE = "flower-hpc.normalise"  # FedNova: updates are divided by the steps behind them
WIDTH = "flower-hpc.width"  # federated dropout: the model's width, in (0, 1]
MOVING = "flower-hpc.moving"  # federated dropout: other coordinates in each round

# in a reply
MARK = "flower-hpc"
FORM = "form"
BASE_VERSION = "base-version"
NAME = "name"
DECODES = "decodes"  # in the mark: the node reads compressed models
HOLDS = "holds"  # in the mark: the version of the model that the node keeps
PROFILE = "flower-hpc.profile"  # a ConfigRecord of the reply: the node's resources
RECEIVED_WALL = "received-wall"  # seconds since the epoch by the node's clock, in the profile record
REPLIED_WALL = "replied-wall"
PROFILE_QUERY = "query.flower_hpc_profile"  # a message type
UPDATE = "update"
WEIGHTS = "weights"

# in a SuperNode's node-config
NODE_NAME = "name"
PARTITION_ID = "partition-id"
NUM_PARTITIONS = "num-partitions"

# in the environment of a SuperLink that a federation started
STATE_ENV = "FLOWER_HPC_STATE"
BELL = "bell"  # in that folder: where a gateway listens for nodes that have messages (network/hold.py)
NODE_STATE_ENV = "FLOWER_HPC_NODE_STATE"  # on a SuperNode: its own folder
DATA_ENV = "FLOWER_HPC_DATA"
OFFLOAD_ENV = "FLOWER_HPC_OFFLOAD"  # on a SuperNode: where its training runs, JSON (client/offload.py)
MPI_ENV = "FLOWER_HPC_MPI"  # on a SuperNode: it is a site of many clients, JSON (client/site)
MOST_CLIENTS = 1000  # of such a node, and of its ranks
SLURM_JOB_ENV = "FLOWER_HPC_SLURM_JOB"  # on a SuperNode in a Slurm job: its id; SLURM_* are not passed on
SUPERNODE_ENV = "FLOWER_HPC_SUPERNODE"  # on what it starts: its pid, and when that was created
JOB_STATE_ENV = "FLOWER_HPC_JOB_STATE"  # in a batch job of one message: a folder of its own
UNNAMED = "unnamed-"  # run keys of runs without a name
UNNAMED_AGE_S = 24 * 3600.0  # after which what was kept of them goes: nobody resumes one
RESIDUALS = "residuals"  # in the node's folder: <node>/<run>/, what it keeps of its updates


@dataclass(frozen=True)
class Mark:
    """What a reply says of itself.

    Its form, the version it started from, the node's name; the ticket of an update whose node would take it
    back, whether the node reads compressed models, and the version that it keeps.
    """

    form: str = WEIGHTS
    base_version: int | None = None
    name: str = ""
    ticket: str = ""
    decodes: bool = False
    holds: int | None = None


@dataclass(frozen=True, kw_only=True)
class SiteShape:
    """Whose answers a node gives: of several clients, or of the ranks that train its one.

    Parameters
    ----------
    clients : int, optional
        Clients of the node, each with a partition of its own; left out with ``together``.
    ranks : int, optional
        Processes that train, at most ``clients``, which then take turns; default as many. With ``together``
        those of the node's one client.
    together : bool
        All ranks train one model and get the same message, as under torchrun; default False.
    """

    clients: int | None = None
    ranks: int | None = None
    together: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.together, bool):
            raise ConfigError(f"together must be true or false, got {self.together!r}")
        needed = "ranks" if self.together else "clients"
        for name, value in (("clients", self.clients), ("ranks", self.ranks)):
            if value is None and name != needed:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_CLIENTS:
                got = "nothing" if value is None else repr(value)
                raise ConfigError(f"{name} must be an integer from 1 to {MOST_CLIENTS}, got {got}")
        if self.together and self.clients not in (None, 1):
            raise ConfigError(f"clients must be left out where ranks train together, got {self.clients}")
        if not self.together and self.workers > (self.clients or 1):
            allowed = f"at most the {self.clients} clients, or with together: true"
            raise ConfigError(f"ranks must be {allowed}, got {self.ranks}")

    @property
    def workers(self) -> int:
        """Processes that train."""
        return self.ranks or self.clients or 1


def config_of(message: Message) -> ConfigRecord:
    """The ConfigRecord of a message: the first one, or an empty one that is not part of it."""
    return next(iter(records_of(message.content, ConfigRecord).values()), ConfigRecord())


def mark_of(reply: Message) -> Mark:
    """Read the mark of a reply; a reply without one holds weights."""
    record = reply.content.get(MARK)
    if not isinstance(record, ConfigRecord):
        return Mark()
    return Mark(
        form=str(record.get(FORM, WEIGHTS)),
        base_version=_whole(record.get(BASE_VERSION)),
        name=str(record.get(NAME, "")),
        ticket=str(record.get(TICKET, "")),
        decodes=record.get(DECODES) is True,
        holds=_whole(record.get(HOLDS)),
    )


def write_mark(reply: Message, mark: Mark) -> None:
    """Mark a reply."""
    record = ConfigRecord({FORM: mark.form, NAME: mark.name, DECODES: mark.decodes})
    if mark.ticket:
        record[TICKET] = mark.ticket
    for key, value in ((BASE_VERSION, mark.base_version), (HOLDS, mark.holds)):
        if value is not None:
            record[key] = value
    reply.content[MARK] = record


def ticket_of(reply: Message) -> str:
    """The ticket of a reply whose node wants to know what becomes of it, else an empty text."""
    records = (reply.content.get(key) for key in (MARK, CONTROL))
    found = (record.get(TICKET) for record in records if isinstance(record, ConfigRecord))
    return next((ticket for ticket in found if isinstance(ticket, str) and ticket), "")


def texts(value: object) -> list[str]:
    """A list of texts in a ConfigRecord; an empty one for anything else."""
    return [str(v) for v in value] if isinstance(value, list) else []


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
