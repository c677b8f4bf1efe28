"""``flower-hpc bundle``: what those need who start a site's nodes elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..federation.handing import as_yaml, hand_over
from .common import ERR, FileOption, find, print_json
from .options import Json


def bundle(
    site: Annotated[str, typer.Argument(help="A site whose launcher is handed.")],
    federation: FileOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write files to this empty folder, for hosts without Kubernetes."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="SECRET", help="Name of the Secret. Default: FEDERATION-SITE.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(metavar="NS", help="Its namespace. Default: kubectl's.")
    ] = None,
    json: Json = False,
) -> None:
    """Print the keys of SITE's nodes, and what else they need, as a Kubernetes Secret; or write files.

    For nobody but who starts the nodes. To be fetched anew after `scale`, or a change of the site's settings.
    """
    if out is not None and (name or namespace):
        raise ConfigError("--name and --namespace are a Secret's, leave them out with --out")
    handed = hand_over(find(federation), site)
    if out is None:
        secret = handed.secret(name, namespace)
        if json:
            print_json(secret)
        else:
            typer.echo(as_yaml(secret), nl=False)
        return
    handed.write(out)
    if json:
        print_json({"site": site, "out": str(out.absolute()), "start": handed.commands})
        return
    words = f"{out} holds private keys: move it to the host of the nodes. There, in that folder, start them:"
    ERR.print(words, highlight=False, soft_wrap=True)
    typer.echo("\n".join(handed.commands.values()))
