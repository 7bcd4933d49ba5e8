"""Open a round with masks at the server, although sites are missing: a second question.

    server -- plan, missing sites --> every node
    node -- unmasking, or a refusal --> server

The missing sites are declared once, in unmasking/missing.json in the folder of the round, and their
later answers are dropped: an unmasking and a late contribution together could open the latter. A
site that answers by file sends it to the coordinator, who stores it as unmasking/SITE.safetensors
and runs the round again.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flwr.app import RecordDict
from flwr.serverapp import Grid

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import plan_bytes
from collabdm.documents.unmasking import Unmasking, decode_unmasking, remaining_sites
from collabdm.errors import DocumentError
from collabdm.flower.collecting import Clock, Collected, CollectionError, Request, Round, gather
from collabdm.flower.wire import UNMASK_QUESTION, missing_content
from collabdm.rounds.masked import UNMASKING_LIMIT, read_unmasking

logger = logging.getLogger("flwr.collabdm")


@dataclass(frozen=True)
class PlanFolder:
    """A plan, and the folder of its round."""

    plan: Plan
    folder: Path

    @property
    def missing_path(self) -> Path:
        """The file with the names of the missing sites."""
        return self.folder / "unmasking" / "missing.json"

    def unmasking_path(self, site: str) -> Path:
        """Return the path of a site's unmasking."""
        return self.folder / "unmasking" / f"{site}.safetensors"


def declared_missing(plan: Plan, folder: Path) -> tuple[str, ...]:
    """Return the sites that were declared missing in an earlier run; none for open plans.

    Raises DocumentError if the list is damaged: without it, a missing site would be asked again.
    """
    path = PlanFolder(plan, folder).missing_path
    if plan.masking is None or not path.exists():
        return ()
    try:
        missing = json.loads(path.read_text())
        remaining_sites(plan, missing)
    except (OSError, TypeError, ValueError) as error:
        raise DocumentError(
            f"{path} should list the missing sites of this round; found something else: restore "
            "it, or make a new plan"
        ) from error
    return tuple(missing)


def unmask(
    collected: Collected,
    place: PlanFolder,
    grid: Grid,
    clock: Clock,
    bound: Mapping[str, int] | None = None,
) -> list[Path]:
    """Ask the remaining sites for their unmaskings, and store them.

    Args:
        collected: the result of the collection, with missing sites.
        place: the plan and the folder of the round.
        grid: Flower's connection to the nodes.
        clock: the clock that measures the deadline, which starts again.
        bound: by site, the only node that may answer for it; other sites may answer from any node.

    Returns:
        The files of all remaining sites.

    Raises:
        CollectionError: a remaining site has not answered; the message says how it can.
    """
    missing = tuple(sorted(collected.missing))
    remaining = remaining_sites(place.plan, missing)
    atomic_write(place.missing_path, (json.dumps(missing) + "\n").encode())
    logger.warning("declared missing: %s", ", ".join(missing))

    round_ = Round(place.plan, _request(place, missing), bound or {}, came=_stored(place, missing))
    gather(round_, grid, clock)

    owing = [site for site in remaining if site not in round_.came]
    if owing:
        options = " ".join(f"--missing {site}" for site in missing)
        raise CollectionError(
            f"{collected}\nthe sum stays closed until {', '.join(owing)} has answered about the "
            f"missing sites: `collabdm unmask PLAN --site NAME {options}` at each of them; store "
            f"the files as {place.unmasking_path('NAME')} and run again with this folder"
        )
    return [place.unmasking_path(site) for site in remaining]


def _request(place: PlanFolder, missing: tuple[str, ...]) -> Request:
    """Make the second question."""

    def content(answered: list[str]) -> RecordDict:
        return missing_content(plan_bytes(place.plan), list(missing))

    return Request(
        question=UNMASK_QUESTION,
        content=content,
        expected=place.plan.sites - len(missing),
        excluded=frozenset(missing),
        limit=UNMASKING_LIMIT,
        site_of=partial(_site_of, place.plan, missing),
        path=place.unmasking_path,
        verb="unmask",
    )


def _site_of(plan: Plan, missing: tuple[str, ...], content: bytes) -> str:
    """Check an unmasking, and return the name of its site. Raises DocumentError."""
    return _about(decode_unmasking(content, plan), missing).site


def _about(unmasking: Unmasking, missing: tuple[str, ...]) -> Unmasking:
    """Check which sites an unmasking is about, and return it. Raises DocumentError."""
    if unmasking.missing != missing:
        raise DocumentError(
            f"the unmasking of {unmasking.site} should be about {', '.join(missing)}; found one "
            f"about {', '.join(unmasking.missing)}"
        )
    return unmasking


def _stored(place: PlanFolder, missing: tuple[str, ...]) -> set[str]:
    """Find the sites whose valid unmaskings are in the folder."""
    sites = set()
    for path in sorted(place.missing_path.parent.glob("*.safetensors")):
        try:
            site = _about(read_unmasking(path, place.plan), missing).site
        except DocumentError as error:
            logger.warning("%s; the site is asked again", error)
            continue
        if path == place.unmasking_path(site):
            sites.add(site)
    return sites
