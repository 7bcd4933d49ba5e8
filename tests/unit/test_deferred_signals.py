"""Signals wait for the end of an iteration, and are never lost."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from collabdm.checkpoint import Checkpoint
from collabdm.matching import threads
from collabdm.matching.run_context import RunContext
from collabdm.rounds import deferred_signals
from collabdm.rounds.resumable import ResumableRun, full_identity, read_state

STEP = Checkpoint(1, {"images": torch.ones(2)})


@pytest.fixture(autouse=True)
def _ctrl_c_raises() -> Iterator[None]:
    """A test runner in the background may ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def stored(output: Path) -> dict[str, int]:
    """How far each part is, in the state of an output."""
    state = read_state(
        output.parent / f".{output.name}.state", full_identity("run", RunContext().compute)
    )
    return {} if state is None else {part: at.done for part, at in state.parts.items()}


def interrupted(output: Path, work: Callable[[RunContext], None]) -> None:
    """Work with checkpoints that Ctrl-C stops."""

    def run() -> None:
        with ResumableRun(output, "run", RunContext()) as context:
            work(context)

    with pytest.raises(KeyboardInterrupt):
        run()


def test_ctrl_c_waits_for_the_next_checkpoint_and_stores_it(tmp_path) -> None:
    output, reached = tmp_path / "a", []

    def work(run: RunContext) -> None:
        run.keep(STEP)
        press_ctrl_c()
        reached.append("the end of the iteration")
        run.part("statistics").keep(Checkpoint(7, {}))
        reached.append("after the checkpoint")

    interrupted(output, work)
    assert reached == ["the end of the iteration"]
    assert stored(output) == {"": 1, "statistics": 7}


def test_ctrl_c_stops_at_once_before_the_first_checkpoint(tmp_path) -> None:
    def work(_: RunContext) -> None:
        press_ctrl_c()
        pytest.fail("the work went on")

    interrupted(tmp_path / "a", work)


def test_a_second_ctrl_c_stops_at_once(tmp_path) -> None:
    def work(run: RunContext) -> None:
        run.keep(STEP)
        press_ctrl_c()
        press_ctrl_c()
        pytest.fail("the work went on")

    interrupted(tmp_path / "a", work)


def test_ctrl_c_within_a_long_iteration_stops_after_the_longest_delay(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(deferred_signals, "LONGEST_DELAY", 0.05)

    def work(run: RunContext) -> None:
        run.keep(STEP)
        press_ctrl_c()
        time.sleep(30)
        pytest.fail("the work went on")

    interrupted(tmp_path / "a", work)


def test_ctrl_c_while_the_output_is_written_lets_it_be_written(tmp_path) -> None:
    output = tmp_path / "a"

    def work(run: RunContext) -> None:
        run.keep(STEP)
        press_ctrl_c()
        output.write_text("whole")

    interrupted(output, work)
    assert output.read_text() == "whole"
    assert stored(output) == {"": 1}  # the same command ends at once


def test_work_within_work_stops_at_its_own_checkpoint(tmp_path) -> None:
    inner = tmp_path / "inner"

    def work(run: RunContext) -> None:
        run.keep(STEP)
        with ResumableRun(inner, "run", RunContext()) as part:
            part.keep(STEP)
            press_ctrl_c()
            part.keep(Checkpoint(2, {}))
            pytest.fail("the inner work went on")

    interrupted(tmp_path / "a", work)
    assert stored(inner) == {"": 2}


def test_sigterm_waits_as_well(tmp_path) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with ResumableRun(tmp_path / "a", "run", RunContext()) as run:
            run.keep(STEP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert received == []
            run.keep(STEP)
            assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_work_in_another_thread_leaves_signals_alone(tmp_path) -> None:
    def work() -> None:
        with ResumableRun(tmp_path / "a", "run", RunContext()) as run:
            run.keep(STEP)
            handlers.append(signal.getsignal(signal.SIGINT))

    handlers: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


# --- threads -------------------------------------------------------------------------------------


@pytest.fixture
def _threads_of_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS")
    yield
    threads.set_threads(1)


@pytest.mark.parametrize(
    ("load", "running", "number"),
    [(0.0, 0, 8), (0.4, 7, 8), (7.6, 0, 8), (3.2, 3, 5), (6.0, 9, 2), (30.0, 40, 1)],
)
@pytest.mark.usefixtures("_threads_of_the_test")
def test_the_number_of_threads_is_that_of_the_free_cores(
    load: float, running: int, number: int, monkeypatch, tmp_path
) -> None:
    (tmp_path / "loadavg").write_text(f"{load} 0.5 0.4 {running + 1}/200 4711\n")
    monkeypatch.setattr(threads, "_LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.5, 0.4))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(threads, "quota", lambda: None)
    assert threads.free_threads().number == number
    monkeypatch.setattr(threads, "quota", lambda: 1.5)
    assert threads.free_threads().number == min(number, 2)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
    ],
)
def test_quotas_of_both_versions_of_control_groups_are_read(files, cores, tmp_path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads.quota(tmp_path) == cores


@pytest.mark.usefixtures("_threads_of_the_test")
def test_options_and_the_variable_fix_the_number_of_threads(monkeypatch) -> None:
    assert str(threads.set_threads(3)) == "3 threads (--threads)"
    assert torch.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert str(threads.set_threads()) == "1 thread (OMP_NUM_THREADS)"
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("_threads_of_the_test")
def test_resumed_work_has_the_same_number_of_threads_unless_the_user_sets_another(tmp_path) -> None:
    output = tmp_path / "a"

    def work(run: RunContext) -> None:
        resumed.append(run.resume is not None)
        run.keep(STEP)
        press_ctrl_c()
        run.keep(STEP)

    resumed: list[bool] = []
    threads.set_threads(2)
    interrupted(output, work)
    threads.set_threads()
    interrupted(output, work)
    assert torch.get_num_threads() == 2
    threads.set_threads(1)
    interrupted(output, work)
    assert resumed == [False, True, False]
