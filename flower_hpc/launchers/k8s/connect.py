"""Finds a cluster and who we are to it; what it refuses, in its own words."""

import json
from pathlib import Path
from typing import Any

from yaml import YAMLError

from ...errors import LaunchError

LONGEST_S = 20.0
NONE = 400
"""Counts as a request that no server would take."""
IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ClusterError(LaunchError):
    """A cluster refused, or could not be asked.

    Parameters
    ----------
    words : str
        One line; the server's own where it spoke.
    status : int
        Of HTTP; 0 where no answer came.
    after_s : float
        Seconds that the server asks to wait before another try; default 0.
    """

    def __init__(self, words: str, status: int = 0, after_s: float = 0.0) -> None:
        super().__init__(words)
        self.status, self.after_s = status, after_s


def connect(kubeconfig: Path | None, context: str | None) -> tuple[Any, str | None, str]:
    """A client of the official package, the namespace of its context, and the context's name.

    Raises
    ------
    LaunchError
        The package is missing, or there is no such cluster to speak to; one line.
    """
    try:
        from kubernetes import client as api
        from kubernetes import config
    except ImportError as error:
        words = "the package kubernetes is missing: pip install 'flower-hpc[kubernetes]'"
        raise ClusterError(words, NONE) from error
    try:
        name = None if kubeconfig is None else str(kubeconfig)
        contexts, current = config.list_kube_config_contexts(config_file=name)  # type: ignore[no-untyped-call]
        chosen = next((one for one in contexts if one["name"] == context), None) if context else current
        if chosen is None:
            known = ", ".join(str(one["name"]) for one in contexts)
            raise ClusterError(f"context must be one of: {known}; got {context!r}", NONE)
        settings = api.Configuration()
        config.load_kube_config(name, context, settings)  # type: ignore[no-untyped-call]
        settings.retries = False  # ours are told once, and not three times by a library
        return api.ApiClient(settings), chosen["context"].get("namespace"), str(chosen["name"])
    except config.ConfigException as error:
        if kubeconfig is not None or context is not None:
            raise ClusterError(f"kubeconfig: {name}: {' '.join(str(error).split())}", NONE) from error
        return _in_cluster(error)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, YAMLError) as error:
        raise ClusterError(f"kubeconfig: {' '.join(str(error).split())[:300]}", NONE) from error


def _in_cluster(error: Exception) -> tuple[Any, str | None, str]:
    from kubernetes import client as api
    from kubernetes import config

    configuration = api.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        words = "no cluster to speak to: set KUBECONFIG or the site's kubeconfig"
        raise ClusterError(f"{words} ({' '.join(str(error).split())})", NONE) from error
    namespace = IN_POD.read_text().strip() if IN_POD.exists() else None
    return api.ApiClient(configuration), namespace, "this pod's service account"


def refusal(error: Any, where: str) -> ClusterError:
    """What a server answered, in its own words."""
    try:
        body = error.body.decode() if isinstance(error.body, bytes) else error.body
        words = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        words = f"{error.status} {error.reason}"
    if error.status == 401:
        words = f"{where} does not accept the credentials (401 {words}): renew them in the kubeconfig"
    header = str((error.headers or {}).get("Retry-After", ""))
    after_s = min(LONGEST_S, float(header)) if header.isdigit() else 0.0
    return ClusterError(" ".join(words.split()), int(error.status or 0), after_s)
