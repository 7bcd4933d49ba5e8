"""What a site has answered to plans with masks; each question is answered once only.

The same mask on different numbers would reveal their difference. The site's private folder
therefore keeps the finished file for each plan, with a digest of the data behind it: the same
data gets the same bytes again, other data is refused. In the same way, a site answers one list of
missing sites for each plan.

    masked/SITE-DIGEST/contribution    the data's digest and a line feed, then the file
    masked/SITE-DIGEST/unmasking       the missing sites, separated by commas, and a line feed, ...

A folder that is deleted, or lost with its machine, protects nothing any more.
"""

from dataclasses import dataclass
from pathlib import Path

from collabdm.documents.atomic_write import write_once
from collabdm.documents.plan import Plan
from collabdm.errors import CollabDMError, OutputError
from collabdm.privacy.site_folder import site_folder


class AnsweredError(CollabDMError):
    """The site has answered this plan before, differently."""


@dataclass(frozen=True)
class Answer:
    """A stored answer: the question that it belongs to, as one line of text, and the file."""

    question: str
    content: bytes


@dataclass(frozen=True)
class Answers:
    """The answers of one site to one plan."""

    plan: Plan
    site: str

    @property
    def folder(self) -> Path:
        """The folder of the answers, in the site's private folder."""
        return site_folder() / "masked" / f"{self.site}-{self.plan.digest}"

    def contribution(self, data_digest: str) -> bytes | None:
        """Return the contribution that was made from this data; None if there is none yet.

        Raises AnsweredError if it was made from other data.
        """
        return self._content("contribution", data_digest)

    def keep_contribution(self, data_digest: str, content: bytes) -> bytes:
        """Store a contribution, and return the one that counts: the first.

        Raises AnsweredError if a contribution was made from other data meanwhile, and OutputError
        if it cannot be stored; it must not be sent then.
        """
        return self._keep("contribution", Answer(data_digest, content))

    def unmasking(self, missing: tuple[str, ...]) -> bytes | None:
        """Return the answer about these missing sites; None if there is none yet.

        Raises AnsweredError if the site has answered about others.
        """
        return self._content("unmasking", ",".join(missing))

    def keep_unmasking(self, missing: tuple[str, ...], content: bytes) -> bytes:
        """Store an answer about missing sites, and return the one that counts: the first.

        Raises AnsweredError if the site has answered about others meanwhile.
        """
        return self._keep("unmasking", Answer(",".join(missing), content))

    @property
    def has_contributed(self) -> bool:
        """Whether a contribution is stored."""
        return (self.folder / "contribution").exists()

    def _content(self, kind: str, question: str) -> bytes | None:
        stored = self._read(kind)
        if stored is None:
            return None
        if stored.question != question:
            raise AnsweredError(_refusal(kind, self.site, stored.question))
        return stored.content

    def _keep(self, kind: str, answer: Answer) -> bytes:
        line = answer.question.encode() + b"\n"
        write_once(self.folder / kind, line + answer.content)
        return self._content(kind, answer.question) or answer.content

    def _read(self, kind: str) -> Answer | None:
        path = self.folder / kind
        try:
            question, _, content = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"{path} should be readable; {error.strerror}") from error
        return Answer(question.decode(errors="replace"), content)


def _refusal(kind: str, site: str, question: str) -> str:
    """Write why another answer is refused."""
    if kind == "contribution":
        return (
            f"{site} should answer a plan with masks once; found an answer from other data: a "
            "second one would reveal the difference; restore the data, or ask for a new plan"
        )
    return (
        f"{site} should answer about one list of missing sites; found an answer about "
        f"{question}: another one could open the sum of fewer sites; ask for a new plan"
    )
