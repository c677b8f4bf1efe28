"""Logs that a platform keeps, fetched when somebody wants to read them."""

from .desired import Saved
from .launching import Launchers
from .roster import site_of
from .site import CloudSite
from .state import StateDir


def fetch(state: StateDir, node: str) -> bool:
    """Bring the log of a pod or an instance up to date; False for others, which are on a disk of ours.

    Raises
    ------
    LaunchError
        The platform has no log of it, or does not answer.
    """
    saved, site = Saved.read(state), site_of(node)
    if saved is None or not isinstance(saved.config.sites.get(site), CloudSite):
        return False
    launchers = Launchers(state)
    try:
        text = launchers.cloud(saved.config, site).fetch(node)
    finally:
        launchers.close()
    path = state.log(node)
    old = path.read_text("utf-8", errors="replace") if path.exists() else ""
    # appended where it goes on: who follows it reads on
    grown = bool(old) and text.startswith(old)
    with path.open("a" if grown else "w", encoding="utf-8") as log:
        log.write(text[len(old) :] if grown else text)
    return True
