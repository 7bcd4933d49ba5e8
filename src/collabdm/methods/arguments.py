"""Check the types of what callers pass to `contribute` and `distill`, before any work."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from collabdm.documents.contribution import Contribution
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError, PlanError, check_type
from collabdm.images import check_image_set
from collabdm.matching.run_context import RunContext


def check_site_arguments(
    plan: object, data: object, site: object, context: object = RunContext()
) -> None:
    """Check the types of the arguments of `contribute`.

    Args:
        plan: should be a Plan.
        data: should be an ImageSet.
        site: should be text.
        context: should be a RunContext.

    Raises:
        PlanError: the plan, the site or the context has another type.
        DataError: the data has another type.
    """
    _check_plan(plan)
    check_image_set("data", data)
    check_type("site", site, str, PlanError, "name the site in text")
    _check_context(context)


def check_round_arguments(plan: object, contributions: object, context: object) -> None:
    """Check the types of the arguments of `distill`.

    Args:
        plan: should be a Plan.
        contributions: should be a sequence, or a mapping that reads them, of contributions.
        context: should be a RunContext.

    Raises:
        PlanError: the plan or the context has another type.
        DocumentError: the contributions have another type.
    """
    _check_plan(plan)
    if isinstance(contributions, Contribution):
        remedy = "put it into a list, also if it is the only one"
        check_type("contributions", contributions, list, DocumentError, remedy)

    if isinstance(contributions, str | Path) or not isinstance(contributions, Sequence | Mapping):
        remedy = "read each file with `read_contribution`"
        check_type("contributions", contributions, list, DocumentError, remedy)

    for one in contributions if isinstance(contributions, Sequence) else ():
        remedy = "read it with `read_contribution(path, plan)`"
        check_type("each of `contributions`", one, Contribution, DocumentError, remedy)
    _check_context(context)


def _check_plan(plan: object) -> None:
    check_type("plan", plan, Plan, PlanError, "make it with `plan_for` or `read_plan`")


def _check_context(context: object) -> None:
    remedy = "pass RunContext(choose_compute(...)) to select the device"
    check_type("context", context, RunContext, PlanError, remedy)
