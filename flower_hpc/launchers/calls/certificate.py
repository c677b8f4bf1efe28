"""A certificate for one process and one address: it signs itself; who is given it trusts nothing else."""

import datetime
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LASTS = datetime.timedelta(days=3650)
"""Longer than any process: it dies with its key."""


@dataclass(frozen=True)
class Key:
    """A private key and its certificate, in PEM."""

    both: bytes = field(repr=False)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Let a server use it."""
        with tempfile.TemporaryDirectory(prefix="flower-hpc-tls-") as folder:  # ssl reads files alone
            path = Path(folder) / "key.pem"
            path.touch(0o600)
            path.write_bytes(self.both)
            context.load_cert_chain(path)


def self_signed(address: str) -> tuple[str, Key]:
    """A certificate for an IP address, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "flower-hpc calls")])
    san = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)  # clocks differ
        .not_valid_after(now + LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(san, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return pem.decode(), Key(secret + pem)
