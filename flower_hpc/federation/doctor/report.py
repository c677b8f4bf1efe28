"""What the probe's report says about a site's compute nodes."""

from collections.abc import Iterator, Mapping
from typing import Any

from ...launchers.probe import PACKAGES, Way
from ..sites import SlurmSite
from .finding import Finding, ok, problem, warning
from .log import silence, trouble
from .probe import Outcome

SKEW_S, LEAST_FREE_GB = 5.0, 1.0
STAGES = {
    "name": "gateway: {address: a name or an IP address of this machine that the nodes know}",
    "tcp": "a firewall, or a wrong network: gateway: {address: this machine on the cluster's network, "
    "port: one that is open}",
    "tls": "something else answers there: gateway: {port: another one}",
}


def judge(
    outcome: Outcome, site: SlurmSite, way: Way | None, here: Mapping[str, str | None], *, stands_in: bool
) -> Iterator[Finding]:
    """Everything that the probe tells.

    Parameters
    ----------
    outcome : Outcome
        What became of it.
    site : SlurmSite
        Whose.
    way : Way, optional
        What it was to reach.
    here : mapping
        The versions on this machine.
    stands_in : bool
        Whether ``way`` led to a listener in the gateway's stead.
    """
    if outcome.report is None:
        yield silence(outcome)
        return
    seen = outcome.report
    took = f"{outcome.waited_s:.0f} s after its submission"
    yield ok("probe job", f"{outcome.status.job} reported from {seen['node']} ({seen['host']}), {took}")
    yield ok("shared folder there", "the node reads and writes it")
    if site.setup and (words := trouble(outcome.log)):
        yield warning("setup", words, "`setup` lines that work in a batch job of this cluster")
    yield python(seen)
    yield from versions(seen["versions"], here)
    yield programs(seen)
    if site.gpus:
        yield gpus(seen["gpus"], int(site.gpus.rpartition(":")[2]))
    if way is not None:
        yield gateway(seen["way"], way, stands_in=stands_in)
    yield network(seen["network"], site)
    yield scratch(seen["scratch"])
    if site.data_dir is not None:
        yield data(seen["data_dir"], site.data_dir)
    yield clock(seen["clock"], outcome)


def python(seen: Mapping[str, Any]) -> Finding:
    """The node's own."""
    return ok("Python there", f"{seen['versions']['Python']}, {seen['python']}")


def versions(there: Mapping[str, str | None], here: Mapping[str, str | None]) -> Iterator[Finding]:
    """Whether Python and packages are those of this machine; a patch level of Python does not matter."""
    mend = "install the same versions in both places, or one environment on the shared disk"
    wrong = [
        f"{name} {there[name] or 'is missing'}, here {here[name]}"
        for name in PACKAGES[:2]
        if _other(name, there, here)
    ]
    if wrong:
        yield problem("versions there", "; ".join(wrong), mend)
        return
    minor = [dict(each) | {"Python": (each["Python"] or "").rpartition(".")[0]} for each in (there, here)]
    differ = [name for name in ("Python", "numpy") if _other(name, *minor)]
    if differ:
        words = "; ".join(f"{name} {there[name] or 'is missing'}, here {here[name]}" for name in differ)
        yield warning("versions there", words, mend)
        return
    yield ok("versions there", ", ".join(f"{name} {there[name]}" for name in PACKAGES))


def programs(seen: Mapping[str, Any]) -> Finding:
    """Whether the node finds Flower's programs."""
    missing = [name for name, path in seen["programs"].items() if path is None]
    if missing:
        mend = f"install flwr in the environment of {seen['python']}"
        return problem("programs there", f"not found: {', '.join(missing)}", mend)
    return ok("programs there", ", ".join(seen["programs"].values()))


def gpus(seen: Mapping[str, int | None], wanted: int) -> Finding:
    """Whether the GPUs that were asked for are seen."""
    given, driver = seen["given"] or 0, seen["driver"]
    words = f"{wanted} asked for, {given} given, {'no nvidia-smi' if driver is None else driver} seen"
    if given < wanted:
        return problem(
            "GPUs there", words, "`gpus` by its type, or options: {gpus-per-node: ...}, as this cluster wants"
        )
    if driver is not None and driver < wanted:
        mend = "the node's driver is to blame; in a container: apptainer exec --nv"
        return problem("GPUs there", words, mend)
    if driver is None:
        mend = "fine for GPUs of others than NVIDIA; in a container: apptainer exec --nv"
        return warning("GPUs there", words, mend)
    return ok("GPUs there", words)


def gateway(seen: Mapping[str, str], way: Way, *, stands_in: bool) -> Finding:
    """Whether the node reaches this machine."""
    where = f"{way.host} port {way.port}"
    where += " (a listener in its stead: the federation is not up)" if stands_in else ""
    if not seen:
        return ok("gateway", f"the node reaches {where}, by TLS")
    stage = seen["stage"]
    what = {
        "name": "is a name that the node does not know",
        "tcp": "cannot be reached",
        "tls": "answers otherwise",
    }
    return problem("gateway", f"{where} {what[stage]}: {seen['words']}", STAGES[stage])


def network(reason: str, site: SlurmSite) -> Finding:
    """Whether apps on the node can be kept apart from its other users."""
    if not reason:
        return ok("network there", "private networks can be had")
    if site.network == "host":
        return ok("network there", f"host, as asked for ({reason})")
    mend = "whole nodes (options: {exclusive: true}), or ask the administrators for user namespaces"
    return warning("network there", f"apps share the node's network: {reason}", mend)


def scratch(seen: Mapping[str, Any]) -> Finding:
    """Whether the node has room of its own."""
    if "words" in seen:
        mend = "setup: [export TMPDIR=...], a folder that can be written there"
        return problem("scratch", f"{seen['path']} cannot be written: {seen['words']}", mend)
    words = f"{seen['free_gb']:.1f} GB free at {seen['path']}"
    if seen["free_gb"] < LEAST_FREE_GB:
        return warning("scratch", words, "setup: [export TMPDIR=...], a folder with more room")
    return ok("scratch", words)


def data(there: bool, folder: str) -> Finding:
    """Whether the site's data are where the node looks for them."""
    if there:
        return ok("data there", folder)
    return problem(
        "data there",
        f"{folder} is no folder there that can be read",
        "data_dir: a folder that the compute nodes have",
    )


def clock(there: float, outcome: Outcome) -> Finding:
    """Whether the node's clock is near ours: it reported between two moments that we know."""
    off = max(outcome.after - there, there - outcome.before, 0.0)
    if off > SKEW_S:
        mend = "the administrators know how (NTP); facts of runs carry wrong times until then"
        return warning("clock", f"the node's differs by {off:.0f} s at least", mend)
    return ok("clock", "as here")


def _other(name: str, there: Mapping[str, str | None], here: Mapping[str, str | None]) -> bool:
    return there.get(name) != here.get(name)
