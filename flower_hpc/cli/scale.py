"""``flower-hpc scale``: more or fewer nodes at a site."""

from typing import Annotated

import typer

from ..federation.handed_site import HandedSite
from .common import ERR, FileOption, find, print_json, print_status
from .options import Json


def scale(
    site: Annotated[str, typer.Argument(help="A site of the federation file.")],
    nodes: Annotated[int, typer.Argument(metavar="N", help="How many nodes it shall have, 0 or more.")],
    federation: FileOption = None,
    json: Json = False,
) -> None:
    """Set the number of nodes of SITE; names, keys and partitions of stopped nodes are kept."""
    target = find(federation)
    with ERR.status(f"federation {target.name}: {site} to {nodes} nodes"):
        status = target.scale(site, nodes)
    if json:
        print_json(status.to_json())
    else:
        print_status(status, ERR)
        if isinstance(target.config.sites.get(site), HandedSite):
            words = f"new nodes need a new bundle where they are started: `flower-hpc bundle {site}`; "
            words += "those that are no longer wanted are refused, wherever they run"
            ERR.print(words, highlight=False, soft_wrap=True)
