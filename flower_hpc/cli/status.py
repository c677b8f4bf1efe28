"""``flower-hpc status``: the SuperLink and the nodes of a federation."""

from .common import OUT, File, FileOption, find, print_json, print_status
from .options import Json


def status(federation: File = None, option: FileOption = None, json: Json = False) -> None:
    """Print the state of a federation and its nodes, from any shell."""
    found = find(federation, option).status()
    if json:
        print_json(found.to_json())
    else:
        print_status(found, OUT)
