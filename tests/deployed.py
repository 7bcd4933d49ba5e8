"""Flower's real processes on this machine: a SuperLink and SuperNodes with certificates and keys of their own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
APP = Path(__file__).parents[1] / "apps" / "flower"
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
}
PATIENCE = 120.0  # seconds for anything to happen


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(what: Callable[[], object], patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def tool(*words: object, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True, cwd=cwd)


def make_certificates(folder: Path) -> None:
    """A root of its own, and the server's certificate for 127.0.0.1, as docs/deploy.md makes them."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    tool("openssl", "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=round", cwd=folder)
    names = ("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-addext", "basicConstraints=CA:FALSE")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.crt")
    tool("openssl", "req", "-x509", *key, *signed, "-subj", "/CN=server", *names, cwd=folder)


@dataclass
class Deployment:
    """Processes that are ended with it, by their own numbers."""

    folder: Path
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | QUIET | {"FLWR_HOME": str(self.folder / "flower"), "PATH": f"{BIN}:{os.environ['PATH']}"}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, name: str, *command: object) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(word) for word in command],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, name: str, how: int = signal.SIGTERM) -> None:
        """End one process with all that it started."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def start_server(self, *more: object) -> None:
        tls = ("--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.crt", "--ssl-keyfile", "server.key")
        where = ("--host", "127.0.0.1", "--port", self.port)
        self.start("superlink", BIN / "flower-superlink", *tls, "--enable-supernode-auth", *where, *more)
        wait_for(self._answers)
        home = self.folder / "flower"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "round"\n\n[superlink.round]\naddress = "{self.address}"\n'
            f'root-certificates = "{self.folder / "ca.crt"}"\n'
        )

    def _answers(self) -> bool:
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0

    def flwr(self, *words: object) -> str:
        command = [str(BIN / "flwr"), *map(str, words)]
        ran = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def register(self, site: str) -> None:
        """Make a node's key and tell the server its public half."""
        tool("ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", self.folder / f"{site}.key")
        self.flwr("supernode", "register", self.folder / f"{site}.key.pub", "round")

    def start_node(self, site: str, **config: object) -> None:
        said = " ".join(f'{name}="{value}"' for name, value in ({"site": site} | config).items())
        trust = ("--root-certificates", "ca.crt", "--auth-supernode-private-key", f"{site}.key")
        where = ("--superlink", self.address, "--port", free_port(), "--node-config", said)
        self.start(site, BIN / "flower-supernode", *trust, *where)

    def run(self, **config: object) -> None:
        said = " ".join(f"{k}={json.dumps(v)}" for k, v in config.items())
        self.flwr("run", APP, "round", "--run-config", said)

    def log(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-4000:]}" for path in sorted(self.folder.glob("*.log")))


@contextlib.contextmanager
def deployment(folder: Path) -> Iterator[Deployment]:
    make_certificates(folder)
    deployed = Deployment(folder)
    try:
        yield deployed
    except BaseException:
        print(deployed.log())
        raise
    finally:
        for name in list(deployed.processes):
            deployed.stop(name)
