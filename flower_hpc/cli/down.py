"""``flower-hpc down``: stop everything that `up` started."""

from .common import ERR, File, FileOption, find, print_json
from .options import Json


def down(federation: File = None, option: FileOption = None, json: Json = False) -> None:
    """Stop the nodes, the SuperLink and the controller; keys, names and runs are kept."""
    target = find(federation, option)
    with ERR.status(f"federation {target.name}: stopping"):
        was_up = target.down()
    if json:
        print_json({"name": target.name, "was_up": was_up})
    else:
        ERR.print(f"federation {target.name}: {'stopped' if was_up else 'was not up'}", highlight=False)
