"""Which addresses pods must reach: network policies know no host names."""

import ipaddress
import socket
from pathlib import Path

from ..filling import read_door
from ..ports import split


def reached(door: Path) -> list[tuple[str, int]]:
    """The networks and the port behind a door file; every address at that port where the name is unknown.

    Parameters
    ----------
    door : Path
        Says ``tcp:HOST:PORT``; nothing is reached where it is missing.
    """
    said = read_door(door).removeprefix("tcp:")
    if not said:
        return []
    host, port = split(said)
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, port, proto=socket.IPPROTO_TCP)}
    except OSError:  # pods may know it though
        return [("0.0.0.0/0", port), ("::/0", port)]
    return sorted((str(ipaddress.ip_network(address.partition("%")[0])), port) for address in found)
