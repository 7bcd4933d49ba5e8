"""Flower's real processes on one machine: a SuperLink and SuperNodes with certificates and keys.

They use the loopback interface or, where permitted, network namespaces: each then has its own
address, and a link that can be cut.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from collabdm.flower.app_folder import write_app

BIN = Path(sys.executable).parent
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
}
REGISTER = (  # `flwr supernode register` for many keys in one process
    "import sys; from flwr.cli.app import app\n"
    "for key in sys.argv[1:]: app(['supernode', 'register', key, 'round'], standalone_mode=False)"
)
PATIENCE = 120.0  # seconds for anything to happen


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(what: Callable[[], object], patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def tool(*words: object, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True, cwd=cwd)


def make_certificates(folder: Path, *addresses: str) -> None:
    """A root and the server's certificate, for 127.0.0.1 and `addresses`, as in docs/deploy.md."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    tool(
        "openssl",
        "req",
        "-x509",
        *key,
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-subj",
        "/CN=round",
        cwd=folder,
    )
    hosts = ",".join(["DNS:localhost", "IP:127.0.0.1", *(f"IP:{address}" for address in addresses)])
    names = ("-addext", f"subjectAltName={hosts}", "-addext", "basicConstraints=CA:FALSE")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.crt")
    tool("openssl", "req", "-x509", *key, *signed, "-subj", "/CN=server", *names, cwd=folder)


@dataclass
class Loopback:
    """All processes at one address."""

    server: str = "127.0.0.1"

    def inside(self, name: str) -> tuple[str, ...]:
        """The prefix of a command that runs at a site, or at the server."""
        return ()

    def close(self) -> None:
        return


@dataclass
class Namespaces:
    """A network namespace for the server and for each site, joined by a bridge; needs root."""

    prefix: str = field(default_factory=lambda: f"cdm{os.getpid()}")
    server: str = "10.83.0.1"
    sites: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        at = self._space("server")
        tool("ip", "netns", "add", at)
        tool("ip", "-n", at, "link", "set", "lo", "up")
        tool("ip", "-n", at, "link", "add", "br0", "type", "bridge")
        tool("ip", "-n", at, "addr", "add", f"{self.server}/24", "dev", "br0")
        tool("ip", "-n", at, "link", "set", "br0", "up")

    def _space(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def add(self, site: str) -> None:
        """Add a namespace with its own address, linked to the server's."""
        server, at = self._space("server"), self._space(site)
        self.sites.append(site)
        k = len(self.sites)
        tool("ip", "netns", "add", at)
        tool(
            "ip",
            "link",
            "add",
            f"v{k}",
            "netns",
            server,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            at,
        )
        tool("ip", "-n", server, "link", "set", f"v{k}", "master", "br0", "up")
        tool("ip", "-n", at, "link", "set", "lo", "up")
        tool("ip", "-n", at, "addr", "add", f"10.83.0.{k + 1}/24", "dev", "eth0")
        tool("ip", "-n", at, "link", "set", "eth0", "up")

    def inside(self, name: str) -> tuple[str, ...]:
        """The prefix of a command that runs at a site, or at the server."""
        if name != "server" and name not in self.sites:
            self.add(name)
        return ("ip", "netns", "exec", self._space(name))

    def link(self, site: str, state: str) -> None:
        """Cut a site's link (`down`) or restore it (`up`)."""
        server, interface = self._space("server"), f"v{self.sites.index(site) + 1}"
        tool("ip", "-n", server, "link", "set", interface, state)

    def carried(self, site: str) -> tuple[int, int]:
        """Bytes that a site has sent and received, with the headers of Ethernet, TCP and TLS."""
        command = ["ip", "-n", self._space(site), "-j", "-s", "link", "show", "eth0"]
        (link,) = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return link["stats64"]["tx"]["bytes"], link["stats64"]["rx"]["bytes"]

    def close(self) -> None:
        for name in ("server", *self.sites):
            tool("ip", "netns", "del", self._space(name))


def forbidden() -> str:
    """The reason why network namespaces are not available here; empty if they are."""
    try:
        Namespaces().close()
    except FileNotFoundError:
        return "`ip` is not installed"
    except subprocess.CalledProcessError as error:
        return str(error.stderr.decode().strip())
    return ""


def tree(pid: int) -> dict[int, str]:
    """A process and all of its descendants, with their commands."""
    parents, commands = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            number = int(path.name)
            parents[number] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            commands[number] = (path / "cmdline").read_text().replace("\0", " ").strip()
    processes = {pid: commands.get(pid, "")}
    while more := {
        k: commands[k] for k, above in parents.items() if above in processes and k not in processes
    }:
        processes |= more
    return processes


def peaks(pid: int) -> dict[str, float]:
    """The peak memory in MB of a process and its descendants, by program."""
    by_program: dict[str, float] = {}
    for number, command in tree(pid).items():
        program, status = (
            re.search(r"/(flower-\w+|flwr-\w+)", command),
            Path(f"/proc/{number}/status"),
        )
        with contextlib.suppress(OSError):  # the process has just ended
            peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
            if program and peak:
                by_program[program[1]] = max(by_program.get(program[1], 0.0), int(peak[1]) / 1000)
    return by_program


def _send(processes: Iterable[int], how: int) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)


@dataclass
class Deployment:
    """Running processes, each stopped by its own process number."""

    folder: Path
    app: Path
    network: Loopback | Namespaces = field(default_factory=Loopback)
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    def environment(self, name: str) -> dict[str, str]:
        home = self.folder / f"flower-{name}"
        return os.environ | QUIET | {"FLWR_HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}

    @property
    def address(self) -> str:
        return f"{self.network.server}:{self.port}"

    def start(self, name: str, *command: object) -> None:
        """Start a process at a site, or at the server."""
        home = "coordinator" if name == "run" else name
        inside = self.network.inside("server" if name in ("superlink", "run") else name)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*inside, *map(str, command)],
                env=self.environment(home),
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, name: str, how: int = signal.SIGTERM) -> None:
        """End a process and all of its descendants, detached ones included."""
        process = self.processes.pop(name)
        below = tree(process.pid)
        _send(below if how == signal.SIGKILL else [process.pid], how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        _send(below, signal.SIGKILL)
        process.wait(10)

    def start_server(self, *more: object) -> None:
        tls = (
            "--ssl-ca-certfile",
            "ca.crt",
            "--ssl-certfile",
            "server.crt",
            "--ssl-keyfile",
            "server.key",
        )
        where = ("--host", "0.0.0.0", "--port", self.port)
        self.start(
            "superlink", BIN / "flower-superlink", *tls, "--enable-supernode-auth", *where, *more
        )
        wait_for(self._answers)
        home = self.folder / "flower-coordinator"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "round"\n\n[superlink.round]\naddress = "{self.address}"\n'
            f'root-certificates = "{self.folder / "ca.crt"}"\n'
        )

    def _answers(self) -> bool:
        probe = (
            f"import socket, sys; sys.exit(socket.socket().connect_ex(('127.0.0.1', {self.port})))"
        )
        trial = (*self.network.inside("server"), sys.executable, "-S", "-c", probe)
        return subprocess.run(trial, check=False).returncode == 0

    def _ran(self, *words: object) -> str:
        command = [*self.network.inside("server"), *map(str, words)]
        ran = subprocess.run(
            command,
            env=self.environment("coordinator"),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def flwr(self, *words: object) -> str:
        return self._ran(BIN / "flwr", *words)

    def register(self, *sites: str) -> None:
        """Create the nodes' missing keys, and register their public keys at the server."""
        keys = [self.folder / f"{site}.key" for site in sites]
        for key in keys:
            if not key.exists():
                tool("ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", key)
        self._ran(sys.executable, "-c", REGISTER, *(f"{key}.pub" for key in keys))

    def start_node(self, site: str, /, **config: object) -> None:
        """Start a node with its own key; its site is `site` unless the configuration sets one."""
        settings = " ".join(
            f'{name}="{value}"' for name, value in ({"site": site} | config).items()
        )
        trust = ("--root-certificates", "ca.crt", "--auth-supernode-private-key", f"{site}.key")
        where = ("--superlink", self.address, "--port", free_port(), "--node-config", settings)
        self.start(site, BIN / "flower-supernode", *trust, *where)

    def online(self) -> int:
        """The number of nodes that the server considers online."""
        nodes = json.loads(self.flwr("supernode", "list", "round", "--format", "json"))["nodes"]
        return sum(node["status"] == "online" for node in nodes)

    def _run_command(self, config: Mapping[str, object]) -> tuple[object, ...]:
        settings = " ".join(f"{k}={json.dumps(v)}" for k, v in config.items())
        return ("run", self.app, "round", "--run-config", settings)

    def run(self, **config: object) -> None:
        self.flwr(*self._run_command(config))

    def start_run(self, **config: object) -> None:
        """Start a run in the background, with the server's log in run.log."""
        self.start("run", BIN / "flwr", *self._run_command(config), "--stream")

    def kill_program(self, name: str) -> None:
        """Kill the app's program that a node or the server has started, but not the node."""
        processes = tree(self.processes[name].pid)
        _send(
            [
                pid
                for pid, command in processes.items()
                if re.search(r"/flwr-(client|server)app", command)
            ],
            signal.SIGKILL,
        )

    def log(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text()[-4000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )


@contextlib.contextmanager
def deployment(
    folder: Path, network: Loopback | Namespaces | None = None, app: Path | None = None
) -> Iterator[Deployment]:
    """Certificates and an app, that of the package or another one, for processes to start."""
    network = network or Loopback()
    make_certificates(folder, network.server)
    deployed = Deployment(folder, app or write_app(folder / "app").parent, network)
    try:
        yield deployed
    except BaseException:
        print(deployed.log())
        raise
    finally:
        for name in list(deployed.processes):
            deployed.stop(name)
        network.close()
