"""The ledger of a site: what it has released, so that nothing is released twice in two forms.

Noise and masks protect a plan's contribution only if the plan is answered once: the mean of several
noised answers to one plan has less noise, and two answers under the same masks reveal their
difference. So every such contribution is recorded in the site's private folder (`site_folder`):

    ledger.json        one entry per release, in order
    released/          a copy of each contribution, which a repeated request receives again

A plan that was answered with the same data gets the stored bytes; a plan that was answered with
other data is refused. Entries with noise also count the site's privacy budget (`accounting`). A
lock makes two processes wait for each other, and files are replaced atomically.

The account of a site contains the releases under its name and those of the same data.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from collabdm.documents.atomic_write import PRIVATE_MODE, atomic_write
from collabdm.documents.frozen_model import FrozenModel, SiteName, validation_message
from collabdm.errors import CollabDMError, OutputError
from collabdm.privacy.site_folder import site_folder

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Kind = Literal["noised", "masked", "noised and masked"]


class LedgerError(CollabDMError):
    """The ledger does not allow a release, or cannot be read."""


class Spent(FrozenModel):
    """The privacy budget of a release: a Gaussian mechanism with a noise multiplier.

    `noise_multiplier` is the standard deviation of the noise for a sensitivity of 1; `epsilon` and
    `delta` are the guarantee of this release alone.
    """

    noise_multiplier: Annotated[float, Field(gt=0)]
    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]


class Release(FrozenModel):
    """One contribution that was released.

    Attributes:
        plan: the digest of the plan that it answers.
        site: the name of the site.
        data: the digest of the site's data.
        kind: how the contribution is protected.
        file: the SHA-256 of the contribution.
        spent: the privacy budget; None without noise.
    """

    plan: Digest
    site: SiteName
    data: Digest
    kind: Kind
    file: Digest
    spent: Spent | None = None


class _Document(FrozenModel):
    """The content of ledger.json."""

    version: Literal[1] = 1
    releases: tuple[Release, ...] = ()


class Ledger:
    """The ledger in a folder, by default the site's private folder."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open the ledger of a folder. Raises OutputError if the folder cannot be created."""
        self._folder = site_folder() if folder is None else folder
        self.path = self._folder / "ledger.json"

    def releases(self) -> tuple[Release, ...]:
        """Return all releases, oldest first. Raises LedgerError if the file is damaged."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise LedgerError(f"{self.path} should be readable; {error.strerror}") from error

        try:
            return _Document.model_validate_json(content).releases
        except ValidationError as error:
            raise LedgerError(
                f"{self.path} should be a ledger; {validation_message(error)}: restore it from a "
                "backup, since without it plans could be answered twice"
            ) from error

    def account(self, site: str, data: str) -> list[Release]:
        """Return the releases that count for a site: those of its name, and those of its data.

        `data` is the digest of the data. Raises LedgerError.
        """
        return [
            release for release in self.releases() if site == release.site or data == release.data
        ]

    def stored(self, plan: str, site: str, data: str) -> bytes | None:
        """Return the contribution that a site has already released for a plan.

        Args:
            plan: the digest of the plan.
            site: the name of the site.
            data: the digest of its data.

        Returns:
            The bytes of the contribution; None if the plan has not been answered.

        Raises:
            LedgerError: the plan was answered with other data, or the copy is missing or damaged.
        """
        found = [r for r in self.releases() if (r.plan, r.site) == (plan, site)]
        if not found:
            return None

        release = found[0]
        if release.data != data:
            raise LedgerError(
                f"a plan should be answered once; {site} has answered plan {plan[:16]}… with other "
                "data: use the data of that answer, which returns the same file, or ask for a new "
                "plan"
            )
        return self._copy(release)

    def record(self, release: Release, content: bytes) -> bytes:
        """Record a contribution before it leaves the site, and return the bytes to send.

        Args:
            release: the entry; its `file` is the digest of `content`.
            content: the bytes of the contribution.

        Returns:
            `content`; or the stored bytes if another process has answered the plan meanwhile.

        Raises:
            LedgerError: the plan was answered with other data, or the ledger is damaged.
            OutputError: the ledger cannot be written.
        """
        if hashlib.sha256(content).hexdigest() != release.file:
            raise ValueError("`release.file` should be the SHA-256 of `content`")

        with self._locked():
            earlier = self.stored(release.plan, release.site, release.data)
            if earlier is not None:
                return earlier

            atomic_write(self._copy_path(release), content, private=True)
            document = _Document(releases=(*self.releases(), release))
            text = document.model_dump_json(indent=2) + "\n"
            atomic_write(self.path, text.encode(), private=True)
        return content

    def _copy(self, release: Release) -> bytes:
        """Read the copy of a contribution. Raises LedgerError if it is missing or damaged."""
        path = self._copy_path(release)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise LedgerError(
                f"{path} should be the contribution that was released; {error.strerror}: restore "
                "it, since this plan cannot be answered a second time"
            ) from error

        if hashlib.sha256(content).hexdigest() != release.file:
            raise LedgerError(
                f"{path} should be the contribution that was released; found other bytes: restore "
                "it, since this plan cannot be answered a second time"
            )
        return content

    def _copy_path(self, release: Release) -> Path:
        return self._folder / "released" / f"{release.file}.safetensors"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude other processes while the ledger is read and written. Raises OutputError."""
        path = self._folder / "ledger.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_MODE)
        except OSError as error:
            raise OutputError(f"{path} should be writable; {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
