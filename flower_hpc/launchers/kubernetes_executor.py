"""Functions as Kubernetes Jobs behind Python's own interface: an ``Executor`` whose futures know the cluster.

There is no shared disk: this process serves the call (:mod:`.calls.server`), the Job's pod fetches it
(:mod:`.called`) and sends the result back. The Job's Secret alone says where, and with which token.
"""

import atexit
import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, InvalidStateError
from concurrent.futures import wait as wait_for
from typing import Any, TypeVar

from ..errors import ConfigError, JobFailed, LaunchError
from ..protocol import JOB_STATE_ENV, NODE_STATE_ENV, OFFLOAD_ENV
from .bundle import ADDRESS, HEALTH, HOME, POD, POD_UID
from .calls import luggage
from .calls.server import Call, CallServer
from .job_future import JobFuture
from .k8s.api import Api
from .k8s.follower import Follower
from .k8s.job import CALLER, job, job_secret
from .k8s.options import KubernetesOptions, Volume
from .k8s.place import Place

log = logging.getLogger("flwr.hpc")  # below Flower's own logger

OURS = "FLOWER_HPC_"
HERE = {OFFLOAD_ENV, NODE_STATE_ENV, JOB_STATE_ENV, ADDRESS, HEALTH, POD, POD_UID}
"""Variables that say something of this host."""

T = TypeVar("T")


class KubernetesExecutor(Executor):
    """Each call of :meth:`submit` is one Job with one pod; making an executor touches no cluster.

    A thread follows the jobs. When this process ends, its jobs are cancelled; when it dies, they end by
    themselves: told to stop after ``patience_s``, killed after as long again, and removed by the cluster.
    When its pod is deleted, the cluster deletes them.

    Parameters
    ----------
    options : KubernetesOptions
        What a job asks for.
    place : Place
        Whose the jobs are.
    address : str, optional
        Of this host, as pods see it; default ``$FLOWER_HPC_ADDRESS``.
    patience_s : float
        Silence of this process after which it counts as dead, in seconds, > 0; default 180.
    env : collection of str
        Names of variables that jobs get besides ``FLOWER_HPC_...``; default none.
    api : callable, optional
        Makes what speaks to the cluster; default: through the official client.

    Raises
    ------
    ConfigError
        A value that cannot work.
    """

    def __init__(
        self,
        options: KubernetesOptions,
        place: Place,
        *,
        address: str | None = None,
        patience_s: float = 180.0,
        env: Collection[str] = (),
        api: Callable[[KubernetesOptions], Api] = Api.of,
    ) -> None:
        if not isinstance(patience_s, int | float) or not patience_s > 0:
            raise ConfigError(f"patience_s must be a number > 0, got {patience_s!r}")
        self.address = address or os.environ.get(ADDRESS, "")
        if not self.address:
            raise ConfigError(f"address must be given, or {ADDRESS} set: where pods reach this process")
        self.options, self.place, self.patience_s = options, place, patience_s
        self._env, self._caller = tuple(env), secrets.token_hex(6)
        self._api = api(options)
        self._lock = threading.Lock()
        self._closed = False
        self._server: CallServer | None = None
        self._follower = Follower(self._api, f"{CALLER}={self._caller}", self._forget)

    def submit(  # type: ignore[override]
        self, fn: Callable[..., T], /, *args: Any, minutes: int | None = None, **kwargs: Any
    ) -> JobFuture[T]:
        """Have ``fn(*args, **kwargs)`` run in a Job.

        Parameters
        ----------
        fn : callable
            Is pickled with its arguments when the Job's pod asks for them; nobody may change them until then.
        minutes : int, optional
            The Job's time limit, from now on; default none.

        Raises
        ------
        LaunchError
            The cluster refused it, or cannot be reached.
        RuntimeError
            After :meth:`shutdown`.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            server = self._open()
        # the name is chosen here, once: asking again for what was made already makes no second one
        name = f"{os.environ.get(POD, self.place.name)[:54].rstrip('-')}-{secrets.token_hex(4)}"
        future: JobFuture[T] = JobFuture("Kubernetes Job", name, self._end)
        call = call_of(future, [self._ready(), (fn, args, kwargs)])
        server.offer(name, call)
        try:
            self._make(name, call, server, minutes)
        except BaseException:
            future.cancel()  # it may have been made
            raise
        self._follower.follow(future)
        log.info("%s was submitted", future.job)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; unless ``wait``, or with ``cancel_futures``, jobs are cancelled."""
        with self._lock:
            first, self._closed = not self._closed, True
        futures = self._follower.futures()
        if cancel_futures or not wait:
            for future in futures:
                future.cancel()
        elif futures:
            wait_for(futures)
        if first and self._server is not None:
            self._follower.close()
            self._server.close()
            atexit.unregister(self._at_exit)
        self._api.close()

    def _at_exit(self) -> None:
        self.shutdown(wait=False)

    def _open(self) -> CallServer:
        if self._server is None:
            self._server = CallServer(self.address)
            atexit.register(self._at_exit)
            self._follower.start()
        return self._server

    def _ready(self) -> dict[str, Any]:
        ours = {name for name in os.environ if name.startswith(OURS)} - HERE
        env = {name: os.environ[name] for name in sorted({*ours, *self._env}) if name in os.environ}
        return {"env": env, "apps": luggage.pack(luggage.app_folders())}

    def _make(self, name: str, call: Call, server: CallServer, minutes: int | None) -> None:
        pod, uid = os.environ.get(POD), os.environ.get(POD_UID)
        owner = (pod, uid) if pod and uid else None
        options = self.options
        made = self._api.create(
            job(options, self.place, name, caller=self._caller, owner=owner, minutes=minutes)
        )
        where = {"url": server.url, "name": name, "token": call.token, "ca": server.certificate}
        content = where | {"patience_s": self.patience_s}
        secret = job_secret(options, self.place, made, caller=self._caller, content=content)
        self._api.create(secret, read=False)

    def _end(self, name: str) -> None:
        # first of all nobody waits: what is told to leave then knows that it need not send anything
        if self._server is not None:
            self._server.withdraw(name)
        try:
            self._api.delete("Job", name)
        except LaunchError as error:
            log.warning("Kubernetes Job %s could not be deleted yet: %s", name, error)
            self._follower.delete_later(name)

    def _forget(self, name: str) -> None:
        if self._server is not None:
            self._server.withdraw(name)


def call_of(future: JobFuture[Any], parts: list[Any]) -> Call:
    """What the server needs, so that whatever happens to the call happens to the future."""

    def began() -> None:
        with contextlib.suppress(InvalidStateError, RuntimeError):
            if not future.running():
                future.set_running_or_notify_cancel()

    def ended(good: bool, value: Any) -> None:
        with contextlib.suppress(InvalidStateError):
            if good:
                future.set_result(value)
                return
            failed = JobFailed(f"{future.job}: {value}")
            for note in getattr(value, "__notes__", ()):
                failed.add_note(note)
            future.set_exception(failed)

    def failed(error: Exception) -> None:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        with contextlib.suppress(InvalidStateError):
            future.set_exception(JobFailed(f"{future.job}: what travels cannot be read or written: {words}"))

    return Call(parts, began, ended, failed)


def from_settings(settings: Mapping[str, Any]) -> KubernetesExecutor:
    """Make one of plain values, as ``$FLOWER_HPC_OFFLOAD`` holds them.

    Parameters
    ----------
    settings : mapping
        Fields of KubernetesOptions, ``place`` with those of Place, and ``address``, ``patience_s``, ``env``
        of KubernetesExecutor.

    Raises
    ------
    ConfigError
        An unknown name, or a value that cannot work.
    """
    given = {key: value for key, value in settings.items() if key != "executor"}
    own = {key: given.pop(key) for key in ("address", "patience_s", "env") if key in given}
    try:
        place = Place(**given.pop("place"))
        volumes = tuple(Volume(**each) for each in given.pop("volumes", ()))
        lists = {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
        options = KubernetesOptions(folder=HOME, volumes=volumes, **(given | lists))
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{OFFLOAD_ENV}: {error}") from error
    return KubernetesExecutor(options, place, **own)
