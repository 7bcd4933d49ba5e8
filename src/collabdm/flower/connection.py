"""What a site can find out about its way to the server, before the round and without Flower's programs.

Every check returns a sentence where all is well and raises DeploymentError where something should be
changed. Nothing but a TLS handshake is sent.
"""

import importlib.metadata
import re
import socket
import ssl
import stat
from pathlib import Path

from collabdm.errors import CollabDMError

TIMEOUT = 10.0  # seconds


FLOWER = ((1, 40), (1, 43))  # from, and below


class DeploymentError(CollabDMError):
    """Something between a site and the server should be changed."""


def check_flower() -> str:
    """The version of Flower that is installed."""
    try:
        found = importlib.metadata.version("flwr")
    except importlib.metadata.PackageNotFoundError as error:
        raise DeploymentError("flwr should be installed; found none: pip install 'collabdm[flower]'") from error
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if not FLOWER[0] <= numbers < FLOWER[1]:
        low, high = (".".join(map(str, version)) for version in FLOWER)
        raise DeploymentError(f"flwr should be {low} or newer and below {high}; found {found}")
    return f"flwr {found}"


def check_server(address: str, root_certificates: Path | None) -> str:
    """Whether a server answers at HOST:PORT, with a certificate that the given root has signed."""
    host, port = _host_and_port(address)
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT) as plain:
            if root_certificates is None:
                return f"{address} answers; no certificate was asked for"
            with _context(root_certificates).wrap_socket(plain, server_hostname=host) as secure:
                certificate = secure.getpeercert() or {}
                version = secure.version()
    except ssl.SSLCertVerificationError as error:
        raise DeploymentError(
            f"the certificate of {address} should be for {host} and signed by {root_certificates}; "
            f"found one that is not ({error.verify_message}): ask the coordinator for the right file"
        ) from error
    except ssl.SSLError as error:
        raise DeploymentError(f"{address} should speak TLS; found something else ({error.reason})") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DeploymentError(
            f"{address} should answer; found none ({reason}): compare the address with the coordinator, and ask "
            "whether a firewall is between"
        ) from error
    return f"{address} answers, {version}, certificate until {certificate.get('notAfter', 'no day')}"


def check_key(path: Path) -> str:
    """Whether a file is a private key of the kind that Flower takes, and for nobody else to read."""
    try:
        text, mode = path.read_text(encoding="ascii"), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentError(f"{path} should be a readable private key; {error}") from error
    if not re.match(r"-----BEGIN (OPENSSH|EC) PRIVATE KEY-----\n", text):
        raise DeploymentError(
            f"{path} should be a private key; found another file: make one with ssh-keygen -t ecdsa -b 384"
        )
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DeploymentError(f"{path} should be readable by its owner alone; found {mode & 0o777:o}: chmod 600 {path}")
    return f"{path} is a private key"


def _host_and_port(address: str) -> tuple[str, int]:
    found = re.fullmatch(r"\[?([^\[\]]+?)\]?:([0-9]{1,5})", address)
    if not found or not 0 < int(found[2]) < 65536:
        raise DeploymentError(f"`--server` should be HOST:PORT; found {address!r}")
    return found[1], int(found[2])


def _context(root_certificates: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(root_certificates))
    except (OSError, ssl.SSLError) as error:
        raise DeploymentError(f"{root_certificates} should be a certificate, PEM; found another file") from error
