"""Who is who: a CA and a server certificate for the SuperLink, a key for each node."""

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import FederationError
from ..network.heard import fingerprint
from .state import StateDir

CA_DAYS, SERVER_DAYS, RENEW_DAYS = 3650, 825, 30


def ensure_tls(state: StateDir, host: str) -> None:
    """Make the CA once, and a server certificate where none is valid for ``host`` for 30 days more.

    Parameters
    ----------
    state : StateDir
        Where they lie: ``ca.pem``, ``ca.key``, ``superlink.pem``, ``superlink.key``; keys are mode 0600.
    host : str
        The address that clients connect to; ``localhost`` and the loopback addresses are in it anyway.

    Raises
    ------
    FederationError
        What lies there is damaged.
    """
    now = datetime.datetime.now(datetime.UTC)
    try:
        if not (state.ca.exists() and state.ca_key.exists()):
            _make_ca(state, now)
            state.server_cert.unlink(missing_ok=True)
        if not (state.server_key.exists() and _serves(state.server_cert, host, now)):
            _make_server(state, host, now)
    except ValueError as error:
        raise FederationError(f"a certificate or key in {state.path} is damaged: {error}") from error


def ensure_owner(state: StateDir) -> None:
    """A certificate that shows whoever holds it to be the federation's owner: ``owner.pem``, ``owner.key``.

    Raises
    ------
    FederationError
        The CA is damaged.
    """
    cert, key = state.path / "owner.pem", state.path / "owner.key"
    now = datetime.datetime.now(datetime.UTC)
    try:
        if key.exists() and cert.exists() and _lasts(x509.load_pem_x509_certificate(cert.read_bytes()), now):
            return
        _issue(state, "owner", ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName("owner")], cert, key, now)
    except ValueError as error:
        raise FederationError(f"a certificate or key in {state.path} is damaged: {error}") from error


def ensure_node_key(keys: Path, name: str) -> Path:
    """The private key of a node (ECDSA P-384, OpenSSH, as Flower wants it), made once; ``.pub`` beside it."""
    path, public = keys / name, keys / f"{name}.pub"
    if not path.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        encoding, form = serialization.Encoding, serialization.PublicFormat
        private = serialization.PrivateFormat.OpenSSH
        words = key.public_key().public_bytes(encoding.OpenSSH, form.OpenSSH)
        write_private(public, words + f" {name}\n".encode(), 0o644)
        # the private key last: where it is, its public half is
        write_private(path, key.private_bytes(encoding.PEM, private, serialization.NoEncryption()), 0o600)
    return path


def fingerprint_of(keys: Path, name: str) -> str:
    """By which the gateway knows a node; empty where it has no key yet."""
    try:
        public = serialization.load_ssh_public_key((keys / f"{name}.pub").read_bytes())
    except FileNotFoundError:
        return ""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return fingerprint(public.public_bytes(serialization.Encoding.PEM, form))


def _make_ca(state: StateDir, now: datetime.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("flower-hpc CA")
    cert = (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(state.ca_key, _pem(key), 0o600)
    write_private(state.ca, cert.public_bytes(serialization.Encoding.PEM), 0o644)


def _make_server(state: StateDir, host: str, now: datetime.datetime) -> None:
    addresses = sorted({"127.0.0.1", "::1", host})
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    _issue(state, "SuperLink", usage, names, state.server_cert, state.server_key, now)


def _issue(
    state: StateDir,
    common: str,
    usage: x509.ObjectIdentifier,
    names: list[x509.GeneralName],
    cert_path: Path,
    key_path: Path,
    now: datetime.datetime,
) -> None:
    ca = x509.load_pem_x509_certificate(state.ca.read_bytes())
    ca_key = serialization.load_pem_private_key(state.ca_key.read_bytes(), None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{state.ca_key} is not an elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    cert = (
        _builder(_name(common), ca.subject, key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(key_path, _pem(key), 0o600)
    write_private(cert_path, cert.public_bytes(serialization.Encoding.PEM), 0o644)


def _serves(path: Path, host: str, now: datetime.datetime) -> bool:
    if not path.exists():
        return False
    cert = x509.load_pem_x509_certificate(path.read_bytes())
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress) and _lasts(cert, now)


def _lasts(cert: x509.Certificate, now: datetime.datetime) -> bool:
    return cert.not_valid_after_utc > now + datetime.timedelta(days=RENEW_DAYS)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def write_private(path: Path, content: bytes, mode: int) -> None:
    """Replace a file; it has its mode from its first byte on."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    # the mode from the first byte on: chmod afterwards would leave a moment
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    part.replace(path)
