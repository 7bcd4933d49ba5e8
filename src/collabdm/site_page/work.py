"""The work behind the operator's page: one plan, one check and one contribution at a time.

Requests arrive in threads of the server and only note a job; jobs run in the main thread. There,
signals and checkpoints act as in the commands: Ctrl-C stores the state of the work, and the cancel
button of the page raises the same signal, so that a later run continues.
"""

import hashlib
import io
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from collabdm.documents.atomic_write import check_writable
from collabdm.documents.contribution import Contribution
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import parse_plan
from collabdm.errors import CollabDMError, machine_error, printable
from collabdm.export.document_picture import draw_document
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import RunContext
from collabdm.methods.registry import one_round_method
from collabdm.planning.limits import check_limits
from collabdm.progress import Progress
from collabdm.rounds.comparison import Comparison, sent_images
from collabdm.rounds.exchange import (
    PreparedSite,
    Site,
    contribute_file,
    load_for_plan,
    prepare_site,
)
from collabdm.rounds.inspect import Row, summary
from collabdm.rounds.policy import policy_at_site
from collabdm.rounds.sent import compare_sent, key_rows, sent_rows, sent_warnings, site_forecast
from collabdm.rounds.view import LEGEND, Document, rows_compared
from collabdm.site_page.form import Form

Phase = Literal["empty", "ready", "checking", "checked", "contributing", "cancelled", "done"]

BUSY = ("checking", "contributing")


class NotNowError(CollabDMError):
    """The page asks for something that does not fit the state of the work."""


@dataclass(frozen=True)
class Settings:
    """What the command line sets, and the page cannot change.

    Attributes:
        compute: chooses device, precision and threads, before each computation.
        policy: the policy of the site, a TOML file; None uses the defaults.
        mask_key: the private key of the site; None uses the one in its private folder.
        public_batches: whether to draw batches from the plan.
    """

    compute: Callable[[], Compute]
    policy: Path | None = None
    mask_key: Path | None = None
    public_batches: bool = False


@dataclass(frozen=True)
class Result:
    """A finished contribution: its file, its bytes and SHA-256, and its legend if it has images."""

    path: str
    bytes: int
    sha256: str
    legend: str | None


@dataclass(frozen=True)
class State:
    """What the page shows; `check` counts the checks, so that only the last one can be used."""

    phase: Phase = "empty"
    plan: dict[str, Any] | None = None
    check: int = 0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    error: str | None = None
    progress: dict[str, Any] | None = None
    cancelling: bool = False
    result: Result | None = None


@dataclass
class Work:
    """The state of the page, and the jobs that change it; `form` is what the page starts with."""

    settings: Settings
    form: Form = Form()
    picture: bytes | None = None
    _state: State = State()
    _plan: Plan | None = None
    _prepared: PreparedSite | None = None
    _output: Path = Path()
    _raised: bool = False  # the signal that cancels the contribution
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _jobs: "queue.SimpleQueue[Callable[[], None]]" = field(default_factory=queue.SimpleQueue)

    # --- called by the server, from its threads -------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The state as JSON values."""
        return asdict(self._state)

    @property
    def contribution(self) -> Path | None:
        """The file of the finished contribution; None before that."""
        return self._output if self._state.result is not None else None

    def take_plan(self, content: bytes, name: str) -> None:
        """Read a plan. Raises CollabDMError if it is not one, or work is under way."""
        plan = parse_plan(content, printable(name) or "the plan")
        one_round_method(plan)
        check_limits(plan)
        described = {
            "name": printable(name),
            "summary": summary(plan).split("\n"),
            "classes": plan.classes,
            "sites": plan.site_names or (),
            "of_flows": plan.flows is not None,
        }
        with self._lock:
            self._check_idle()
            self._plan, self._prepared, self.picture = plan, None, None
            self._state = State("ready", described, self._state.check)

    def ask_check(self, form: Form) -> None:
        """Note a check of the form. Raises CollabDMError if it is not complete or not now."""
        form.check_complete()
        with self._lock:
            self._check_idle()
            if self._plan is None:
                raise NotNowError("a plan should be chosen before the check; found none")
            self._prepared, self.picture = None, None
            self._state = State("checking", self._state.plan, self._state.check + 1)
            self.form, plan = form, self._plan
            self._jobs.put(lambda: self._check(plan, form))

    def ask_contribution(self, check: int) -> None:
        """Note that the site of a check should contribute. Raises NotNowError if it is not now."""
        with self._lock:
            self._check_idle()
            prepared = self._prepared
            if prepared is None or check != self._state.check:
                raise NotNowError(
                    "a contribution should follow a check of the same form; found another one: "
                    "check again"
                )
            self._state = replace(self._state, phase="contributing", error=None, result=None)
            self._raised = False
            self._jobs.put(lambda: self._contribute(prepared))

    def ask_cancel(self) -> None:
        """Note that the contribution should stop after its current step."""
        with self._lock:
            if self._state.phase == "contributing":
                self._state = replace(self._state, cancelling=True)

    def _check_idle(self) -> None:
        if self._state.phase in BUSY:
            raise NotNowError("a job should be finished before the next one; found one that runs")

    # --- jobs, in the main thread ----------------------------------------------------------------

    def run_next(self, timeout: float) -> bool:
        """Run the next job, if one arrives in time.

        Args:
            timeout: the longest time to wait for it, in seconds.

        Returns:
            Whether there was one.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        try:
            job = self._jobs.get(timeout=timeout)
        except queue.Empty:
            return False

        try:
            job()
        except CollabDMError as error:
            self._fail(str(error))
        except (OSError, MemoryError) as error:
            self._fail(machine_error(error))
        except KeyboardInterrupt:
            if not self._state.cancelling:
                raise
            self._set(phase="cancelled", progress=None, cancelling=False)
        return True

    def _check(self, plan: Plan, form: Form) -> None:
        plan.check_site(form.site)
        policy = policy_at_site(
            self.settings.policy, form.allow_real_images, form.smallest_class, form.without
        )
        check_writable(form.output)
        data = load_for_plan(plan, form.source, note=self._note)

        settings = self.settings
        site = Site(form.site, policy, settings.public_batches, settings.mask_key)
        prepared = prepare_site(plan, data, site)
        duration = site_forecast(prepared, settings.compute())
        if duration is not None:
            self._note(duration)

        rows = sent_rows(prepared) + (key_rows(plan) if plan.masking else [])
        self._prepared, self._output = prepared, form.output
        self._set(phase="checked", rows=tuple(rows), warnings=tuple(sent_warnings(prepared)))

    def _contribute(self, prepared: PreparedSite) -> None:
        context = RunContext(self.settings.compute(), self._report)
        with _interruptible():
            contribution = contribute_file(prepared, self._output, context)
        comparison = compare_sent(contribution, prepared)

        legend = None
        if contribution is not None and comparison is not None and comparison.classes:
            self.picture = _picture(contribution, comparison, prepared)
            legend = None if self.picture is None else LEGEND
        content = self._output.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        result = Result(str(self._output), len(content), digest, legend)

        rows = sent_rows(prepared, comparison) + (key_rows(prepared.plan) if prepared.key else [])
        self._set(phase="done", rows=tuple(rows), result=result, progress=None, cancelling=False)

    def _report(self, event: Progress) -> None:
        """Show a progress event; if the page asked to cancel, raise the signal of Ctrl-C once."""
        shown = {"label": printable(event.label), "done": event.done, "total": event.total}
        self._set(progress=shown)
        if self._state.cancelling and not self._raised:
            self._raised = True
            signal.raise_signal(signal.SIGINT)

    def _note(self, line: str) -> None:
        self._set(notes=(*self._state.notes, printable(line)))

    def _fail(self, message: str) -> None:
        """Show an error; after a failed contribution, the check still holds."""
        phase: Phase = "ready" if self._prepared is None else "checked"
        self._set(phase=phase, error=message, progress=None, cancelling=False)

    def _set(self, **changes: Any) -> None:
        with self._lock:
            self._state = replace(self._state, **changes)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let the cancel button's signal act where it is ignored, as in a process in the background."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _picture(
    contribution: Contribution, comparison: Comparison, prepared: PreparedSite
) -> bytes | None:
    """Draw the images of a contribution above the nearest private ones; None for rows of a table.

    Args:
        contribution: the contribution, with images.
        comparison: of its images with the site's own.
        prepared: the site.

    Returns:
        The picture, a PNG.
    """
    images = sent_images(contribution)
    if images.shape[-1] == 1:
        return None
    rows = rows_compared(Document(images, prepared.plan), comparison, prepared.data)
    stream = io.BytesIO()
    draw_document(f"{prepared.name} sends {len(images):,} images", rows).save(stream, format="PNG")
    return stream.getvalue()
