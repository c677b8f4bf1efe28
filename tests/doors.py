"""Shared by the tests of the network: certificates, ports, folders of ours, forwards that run."""

import asyncio
import contextlib
import datetime
import ipaddress
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flower_hpc.network.endpoint import Endpoint, listen
from flower_hpc.network.forward import Forward, Identity, serve


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def short_folder():
    """A folder of ours alone, with a path that fits into a socket address."""
    with tempfile.TemporaryDirectory(prefix="d-", dir="/tmp") as folder:
        yield Path(folder)


@contextlib.contextmanager
def forwarding(at, to, identity=None, **more):
    """A forward that runs in a thread; yields the socket it listens on."""
    at, to = Endpoint.parse(at), Endpoint.parse(to)
    listener = listen(at)
    forward = Forward(listener, at, to, identity, **more)
    ready = threading.Event()
    held = []

    async def main():
        stop = asyncio.Event()
        held.extend((asyncio.get_running_loop(), stop))
        ready.set()
        await serve([forward], stop)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait()
    try:
        yield listener
    finally:
        held[0].call_soon_threadsafe(held[1].set)
        thread.join()


@contextlib.contextmanager
def server(handle, family=socket.AF_INET, address=("127.0.0.1", 0)):
    """Calls ``handle(connection)`` in a thread for each connection; yields the address."""
    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=run, args=(connection,), daemon=True).start()

        def run(connection):
            with connection, contextlib.suppress(OSError):
                handle(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def read_all(connection):
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


def make_ca(folder, name="ca"):
    key = ec.generate_private_key(ec.SECP256R1())
    cert = _signed(name, key.public_key(), name, key, x509.BasicConstraints(ca=True, path_length=0))
    _write(folder, name, key, cert)
    return key, name


def make_identity(folder, ca, name, *, for_client, expected=""):
    key = ec.generate_private_key(ec.SECP256R1())
    usage = ExtendedKeyUsageOID.CLIENT_AUTH if for_client else ExtendedKeyUsageOID.SERVER_AUTH
    cert = _signed(name, key.public_key(), ca[1], ca[0], x509.ExtendedKeyUsage([usage]))
    _write(folder, name, key, cert)
    return Identity(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{ca[1]}.pem", expected)


def _signed(name, public, issuer, signer, *extensions):
    now = datetime.datetime.now(datetime.UTC)
    hour = datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder().subject_name(_name(name)).issuer_name(_name(issuer))
    builder = builder.public_key(public).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - hour).not_valid_after(now + hour)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    for extension in (*extensions, x509.SubjectAlternativeName(names)):
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _name(common):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _write(folder, name, key, cert):
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    (folder / f"{name}.pem").write_bytes(cert.public_bytes(encoding))


def enclosed(*arguments, **more):
    """A running ``python -m flower_hpc.network.enclosed``."""
    command = [sys.executable, "-m", "flower_hpc.network.enclosed", *map(str, arguments)]
    return subprocess.Popen(command, text=True, **more)


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


def children(pid):
    """Pids of the living children of a process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(entry.parent.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def as_stranger(command, folder="/", **more):
    """Run a command under another uid; only where the tests run as root."""
    drop = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, **drop, **more)
