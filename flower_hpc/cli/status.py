"""``flower-hpc status``: the SuperLink and the nodes of a federation."""

from .common import OUT, File, Json, find, print_json, print_status


def status(federation: File = None, json: Json = False) -> None:
    """Print the state of a federation and its nodes, from any shell."""
    found = find(federation).status()
    if json:
        print_json(found.to_json())
    else:
        print_status(found, OUT)
