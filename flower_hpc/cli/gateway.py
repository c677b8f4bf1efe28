"""``flower-hpc gateway``: the door for SuperNodes of other hosts."""

import logging
from pathlib import Path
from typing import Annotated

import typer


def gateway(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where SuperNodes connect to.")],
    superlink: Annotated[str, typer.Option(metavar="ENDPOINT", help="unix:/path or tcp:HOST:PORT.")],
    certificate: Annotated[Path, typer.Option(help="What SuperNodes are shown (PEM).")],
    key: Annotated[Path, typer.Option(help="Its private key (PEM).")],
    ca: Annotated[Path | None, typer.Option(help="Who signed the SuperLink's certificate (PEM).")] = None,
    insecure_superlink: Annotated[
        bool, typer.Option("--insecure-superlink", help="The SuperLink speaks plain HTTP.")
    ] = False,
    max_body_mb: Annotated[float, typer.Option(help="Of one request, in MB.")] = 64,
    max_connections: Annotated[int, typer.Option(help="At once.")] = 512,
    heard: Annotated[
        Path | None, typer.Option(help="File to write which nodes were heard when, by their keys.")
    ] = None,
    bell: Annotated[
        Path | None,
        typer.Option(help="File that tells which nodes have messages; requests for messages are held then."),
    ] = None,
    withdrawn: Annotated[
        Path | None,
        typer.Option(help="File of nodes to refuse, as JSON: their keys' fingerprints by name."),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Pass the methods that SuperNodes need on to a SuperLink, and nothing else: no runs, no tasks."""
    from ..network.gateway import GatewaySettings, serve  # costs half a second, which no other command needs

    settings = GatewaySettings(
        listen=listen,
        superlink=superlink,
        certificate=certificate,
        key=key,
        ca=ca,
        insecure_superlink=insecure_superlink,
        max_body_mb=max_body_mb,
        max_connections=max_connections,
        log_level=log_level,
        heard=heard,
        bell=bell,
        withdrawn=withdrawn,
    )
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=log_level.upper())
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    serve(settings)
