"""Which addresses pods must reach: network policies know no host names."""

import ipaddress
import socket

from ..ports import split


def reached(door: str) -> list[tuple[str, int]]:
    """The networks and the port behind a door; every address at that port where the name is unknown.

    Parameters
    ----------
    door : str
        ``tcp:HOST:PORT``; nothing is reached where it is empty, or the port is 0: not known yet.
    """
    said = door.removeprefix("tcp:")
    host, port = split(said) if said else ("", 0)
    if port == 0:
        return []
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, port, proto=socket.IPPROTO_TCP)}
    except OSError:  # pods may know it though
        return [("0.0.0.0/0", port), ("::/0", port)]
    return sorted((str(ipaddress.ip_network(address.partition("%")[0])), port) for address in found)
