"""Check a site's connection to the server before the round, without Flower's programs.

Each check returns a sentence if everything is in order, and raises DeploymentError if something
should be changed. Nothing but a TLS handshake is sent.
"""

import importlib.metadata
import os
import re
import socket
import ssl
import stat
from pathlib import Path

from collabdm.documents.regular_file import SMALL, read_regular
from collabdm.errors import CollabDMError
from collabdm.flower.telemetry import TELEMETRY

TIMEOUT = 10.0  # seconds
FLOWER_VERSIONS = ((1, 40), (1, 43))  # at least the first, below the second


class DeploymentError(CollabDMError):
    """The connection between a site and the server is not set up correctly."""


def check_flower() -> str:
    """Check the version of Flower, and report whether telemetry is on in this environment.

    Raises:
        DeploymentError: Flower is not installed, or its version is not supported.
    """
    try:
        version = importlib.metadata.version("flwr")
    except importlib.metadata.PackageNotFoundError as error:
        raise DeploymentError(
            "flwr should be installed; found none: pip install 'collabdm[flower]'"
        ) from error

    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    lowest, too_high = FLOWER_VERSIONS
    if not lowest <= numbers < too_high:
        low, high = (".".join(map(str, bound)) for bound in FLOWER_VERSIONS)
        raise DeploymentError(f"flwr should be {low} or newer and below {high}; found {version}")

    if os.environ.get(TELEMETRY, "1") == "1":
        return f"flwr {version}, telemetry is on here: export {TELEMETRY}=0 before starting a node"
    return f"flwr {version}, telemetry is off here"


def check_server(address: str, root_certificates: Path | None) -> str:
    """Test whether a server answers, over TLS if its root certificate is given.

    Args:
        address: the server's HOST:PORT.
        root_certificates: the PEM file of the certificate that signed the server's certificate;
            None tests only the port.

    Returns:
        A sentence with the address and, over TLS, the TLS version and the date when the certificate
        expires.

    Raises:
        DeploymentError: no server answers, or its certificate is not valid for this address.
    """
    host, port = _host_and_port(address)
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT) as plain:
            if root_certificates is None:
                return f"{address} answers; no certificate was asked for"

            context = _tls_context(root_certificates)
            with context.wrap_socket(plain, server_hostname=host) as secure:
                certificate = secure.getpeercert() or {}
                version = secure.version()
    except ssl.SSLCertVerificationError as error:
        raise DeploymentError(
            f"the certificate of {address} should be for {host} and signed by {root_certificates}; "
            f"found one that is not ({error.verify_message}): "
            "ask the coordinator for the right file"
        ) from error
    except ssl.SSLError as error:
        raise DeploymentError(
            f"{address} should use TLS; found something else ({error.reason}): "
            "ask the coordinator for the right port"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DeploymentError(
            f"{address} should answer; found no server ({reason}): compare the address with the "
            "coordinator, and ask whether a firewall blocks it"
        ) from error

    expiry = certificate.get("notAfter", "an unknown date")
    return f"{address} answers, {version}, certificate until {expiry}"


def check_key(path: Path) -> str:
    """Check that a file is a private key for Flower, and that only its owner can read it.

    Raises:
        DeploymentError: the file is not such a key, or others can read it.
    """
    try:
        text, mode = read_regular(path, SMALL).decode("ascii"), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentError(f"{path} should be a readable private key; {error}") from error

    if not re.match(r"-----BEGIN (OPENSSH|EC) PRIVATE KEY-----\n", text):
        raise DeploymentError(
            f"{path} should be a private key; found another file: "
            "make one with ssh-keygen -t ecdsa -b 384"
        )
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DeploymentError(
            f"{path} should be readable by its owner alone; found {mode & 0o777:o}: "
            f"chmod 600 {path}"
        )
    return f"{path} is a private key"


def _host_and_port(address: str) -> tuple[str, int]:
    match = re.fullmatch(r"\[?([^\[\]]+?)\]?:([0-9]{1,5})", address)
    if not match or not 0 < int(match[2]) < 65536:
        raise DeploymentError(f"`--server` should be HOST:PORT; found {address!r}")
    return match[1], int(match[2])


def _tls_context(root_certificates: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(root_certificates))
    except (OSError, ssl.SSLError) as error:
        raise DeploymentError(
            f"{root_certificates} should be a certificate, PEM; found another file"
        ) from error
