"""A round between real processes, with TLS and node keys, gives the bytes of the files."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: pip install 'collabdm[flower]'")

from command import OPEN, done
from deployed import Deployment, Loopback, Namespaces, deployment, forbidden, wait_for
from fashion import COMPUTE, a_plan, private_data, sent, write_given

from collabdm.documents.plan import Plan
from collabdm.flower.collecting import contribution_path
from collabdm.flower.connection import check_key, check_server
from collabdm.flower.server import outcome_path

HELD = {"east": (0, 1, 2, 3, 4), "north": (3, 4, 5, 6, 7), "west": (7, 8, 9, 0)}
FAULTY = Path(__file__).parent / "faulty"


@pytest.fixture
def network() -> type[Loopback | Namespaces]:
    """Separate addresses where permitted."""
    return Loopback if forbidden() else Namespaces


def by_file(plan: Plan, root: Path) -> Path:
    """The same round by the commands, through files."""
    same = ("--device", "cpu", "--precision", "float32", "--threads", "1", "--quiet")
    given, folder = write_given(plan, root), root / "by-file"
    for site in HELD:
        words = (
            "--data",
            root / f"{site}.npz",
            "--site",
            site,
            "-o",
            contribution_path(folder, site),
        )
        done("contribute", given, *OPEN, *words, *same)
    files = [contribution_path(folder, site) for site in HELD]
    done("distill", given, *files, "-o", outcome_path(plan, folder), *same)
    return folder


def start_nodes(deployed: Deployment, root: Path) -> None:
    """Start two nodes that answer at once, and one that waits for a file."""
    deployed.register(*HELD)
    for site in HELD:
        assert "private key" in check_key(root / f"{site}.key")
        own = {"data": root / f"{site}.npz", "folder": root / f"kept-{site}", "until": root / "go"}
        own["policy"] = OPEN[1]
        deployed.start_node(site, **own, **COMPUTE, fault="waits" if site == "west" else "none")


@pytest.mark.data
def test_a_round_between_processes_survives_its_server_and_gives_the_bytes_of_the_files(
    real_data, tmp_path, network
) -> None:
    plan = a_plan(private_data(tmp_path, HELD), tuple(HELD))
    expected = by_file(plan, tmp_path)
    round_ = tmp_path / "round"
    config = {"plan": str(write_given(plan, tmp_path)), "folder": str(round_), **COMPUTE}
    with deployment(tmp_path, network(), FAULTY) as deployed:
        deployed.start_server()
        if network is Loopback:
            assert "TLSv1.3" in check_server(deployed.address, tmp_path / "ca.crt")
        start_nodes(deployed, tmp_path)
        deployed.run(**config)
        wait_for(lambda: len(sent(round_)) == 2)
        deployed.stop("superlink", signal.SIGKILL)
        first = sent(round_)
        assert set(first) == {"east", "north"}
        for site in HELD:
            deployed.stop(site)
        (tmp_path / "go").touch()
        deployed.start_server()
        start_nodes(deployed, tmp_path)  # a server that forgot their keys turned them away
        deployed.run(**config)
        wait_for(outcome_path(plan, round_).exists)
    assert sent(round_) == sent(expected)
    assert outcome_path(plan, round_).read_bytes() == outcome_path(plan, expected).read_bytes()


@pytest.fixture
def two() -> Iterator[Namespaces]:
    if why := forbidden():
        pytest.skip(f"no network namespaces here: {why}")
    network = Namespaces()
    try:
        yield network
    finally:
        network.close()


def answers(network: Namespaces, site: str) -> bool:
    """Whether a packet from a site reaches the server."""
    probe = (
        "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)\n"
        "s.settimeout(0.5)\n"
        f"sys.exit(s.connect_ex(('{network.server}', 1)) != 111)"  # 111: refused, so it is there
    )
    return (
        subprocess.run(
            [*network.inside(site), "python3", "-S", "-c", probe], check=False
        ).returncode
        == 0
    )


def test_sites_in_namespaces_have_addresses_of_their_own_and_links_that_can_be_cut(two) -> None:
    assert answers(two, "east")
    assert answers(two, "north")
    two.link("east", "down")
    assert not answers(two, "east")
    assert answers(two, "north")
    two.link("east", "up")
    assert answers(two, "east")
    sent, received = two.carried("east")
    assert sent > 0
    assert received > 0
