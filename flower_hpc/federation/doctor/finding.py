"""What a check of the doctor came to, and what would mend it."""

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """How a check ended; a warning is no obstacle."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One check.

    Parameters
    ----------
    site : str
        Whose; set by who asked for the check.
    check : str
        What was looked at.
    state : Health
        How it stands.
    found : str
        What there is, in one line.
    mend : str
        What to do about it, in one line; default nothing.
    """

    check: str
    state: Health
    found: str
    mend: str = ""
    site: str = ""

    def to_json(self) -> dict[str, str]:
        """For ``--json``."""
        words = {"site": self.site, "check": self.check, "state": str(self.state)}
        return words | {"found": self.found, "mend": self.mend}


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, Health.OK, _line(found))


def warning(check: str, found: str, mend: str) -> Finding:
    """It works, with something that its user should know."""
    return Finding(check, Health.WARNING, _line(found), _line(mend))


def problem(check: str, found: str, mend: str) -> Finding:
    """It cannot work so."""
    return Finding(check, Health.PROBLEM, _line(found), _line(mend))


def _line(words: str) -> str:
    return " ".join(words.split())
