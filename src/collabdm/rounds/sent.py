"""Show the operator of a prepared site everything that it sends: rows, warnings, time, likeness.

The command line and the operator's page show the same.
"""

from collabdm.documents.contribution import Contribution
from collabdm.documents.masked_contribution import masking_of
from collabdm.documents.plan import Plan
from collabdm.matching.compute import Compute
from collabdm.rounds.comparison import Comparison, compare, sent_images
from collabdm.rounds.estimate import estimated_seconds, forecast
from collabdm.rounds.exchange import PreparedSite
from collabdm.rounds.inspect import Row
from collabdm.rounds.policy import RealImages
from collabdm.rounds.preview import preview_contribution, preview_rows
from collabdm.rounds.spending import spending_rows

SHORT_SECONDS = 10.0  # of estimated work, which needs no forecast


def sent_rows(prepared: PreparedSite, comparison: Comparison | None = None) -> list[Row]:
    """Describe everything that a site sends, as rows of (part, value).

    Args:
        prepared: the checked site.
        comparison: of the images of its finished contribution with its own; None before it is
            computed, or if it has no images.

    Returns:
        The rows.
    """
    preview = preview_contribution(prepared.plan, prepared.release, prepared.name)
    rows = preview_rows(preview, comparison)
    return rows + (spending_rows(prepared.spending) if prepared.spending else [])


def sent_warnings(prepared: PreparedSite) -> list[str]:
    """List the rows that an operator should not overlook, as sentences."""
    preview = preview_contribution(prepared.plan, prepared.release, prepared.name)
    warnings = [f"withheld: {withheld}" for withheld in prepared.release.withheld]
    if preview.real_images is not RealImages.NONE:
        warnings.append(
            f"the plan {preview.real_images}: anyone can recognise the real ones in them"
        )
    if preview.total_bytes > preview.data_bytes:
        warnings.append(
            f"the contribution has {preview.total_bytes:,} bytes, more than the site's images of "
            f"these classes, {preview.data_bytes:,}"
        )
    return warnings


def key_rows(plan: Plan) -> list[Row]:
    """List the first digits of all keys of a plan with masks.

    Sites compare them with each other: whoever makes the plan could replace them.
    """
    keys = "\n".join(f"{name}: {key[:16]}" for name, key in masking_of(plan).keys.items())
    return [("keys in the plan", f"{keys}\ncompare them with the other sites")]


def site_forecast(prepared: PreparedSite, compute: Compute) -> str | None:
    """Forecast the computing time at the present load, in words.

    Args:
        prepared: the checked site.
        compute: device and precision.

    Returns:
        The forecast; None if the work takes a few seconds, is already done or has no estimate.
    """
    most = max(one.images for one in prepared.release.classes)
    estimate = estimated_seconds(prepared.plan, most)
    answered = prepared.spending is not None and prepared.spending.stored is not None
    if estimate is None or estimate < SHORT_SECONDS or answered:
        return None
    return f"{forecast(prepared.plan, most, compute)} of computing at the present load"


def compare_sent(contribution: Contribution | None, prepared: PreparedSite) -> Comparison | None:
    """Compare the images of a contribution with the site's own.

    Args:
        contribution: the contribution; None if it was masked.
        prepared: the site that has made it.

    Returns:
        The comparison; None if the contribution has no images.
    """
    images = None if contribution is None else sent_images(contribution)
    return compare(images, prepared.data, prepared.plan.pae) if images else None
