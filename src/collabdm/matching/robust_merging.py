"""Merge class means so that a single site cannot move them far, and measure how sites differ.

For step t and class y, let v_(1) <= ... <= v_(n) be one coordinate of the means L_{t,k}^y of the n
sites that take part in the step and have the class, in ascending order. The robust rules are

    median    (v_(floor((n+1)/2)) + v_(floor(n/2)+1)) / 2
    trimmed   the mean of v_(b+1) .. v_(n-b);  b is the plan's `trim`, 1 by default
              if n <= 2 b, nothing is left out: the plain mean

A few sites can move the result only within the range of the other sites, if they are fewer than
half (median), or at most b (trimmed). Every site has the same weight, because the sites state their
numbers of images themselves. The order of the sites does not change a single bit.

All sites' means of a step are needed at once, so the steps are processed in blocks of about
`BLOCK_NUMBERS` numbers. Contributions that are not in memory are read once for each block, and once
more for the numbers of images.

A site's deviation compares it with the others:

    distance_k = average over y of  d_k^y / median_j d_j^y,
    d_k^y      = root mean square over t of |L_{t,k}^y - median_j L_{t,j}^y|

over the classes and steps that at least `FEWEST_COMPARED` sites have. It is near 1 for sites with
similar data and similarly many images.

Reference: D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-robust distributed learning:
towards optimal statistical rates", ICML 2018.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from collabdm.documents.contribution import Statistics
from collabdm.documents.plan import Plan
from collabdm.matching.class_statistics import Merged
from collabdm.matching.network_size import statistics_width

BLOCK_NUMBERS = 2**26  # float32 numbers in memory at a time, 256 MiB

FEWEST_COMPARED = 3  # sites; the median of two is as far from the one as from the other

#: returns the statistics of all sites, in the order of their names; it may read them again
ReadSites = Callable[[], Iterable[Statistics]]


def merge_robust(plan: Plan, sites: int, read: ReadSites) -> Merged:
    """Merge the statistics of all sites by the plan's robust rule, `median` or `trimmed`.

    Args:
        plan: the plan.
        sites: the number of sites that `read` returns.
        read: returns the statistics of all sites; it is called for each block of steps.

    Returns:
        The merged statistics.
    """
    classes, width = len(plan.classes), statistics_width(plan)
    means = torch.zeros(plan.steps, classes, width)
    present = torch.zeros(plan.steps, classes, dtype=torch.bool)

    for first, values in _blocks(plan, sites, read):
        rows = slice(first, first + values.shape[1])
        for y in range(classes):
            ordered, count = _in_order(values[:, :, y])
            if plan.merging == "median":
                merged = _median(ordered, count)
            else:
                merged = _trimmed_mean(ordered, count, plan.trim or 1)
            present[rows, y] = count > 0
            means[rows, y] = torch.where(count[:, None] > 0, merged, 0.0)

    totals = torch.zeros(classes, dtype=torch.int64)
    for site in read():
        totals[site.classes] += site.totals
    return Merged(means, present, totals)


@dataclass(frozen=True)
class Deviation:
    """How a site's means differ from those of the other sites.

    `distance` is that of the module's docstring; `norm` is the norm of the site's means over the
    median of the sites' norms, computed in the same way.
    """

    distance: float
    norm: float


def deviations(plan: Plan, sites: int, read: ReadSites) -> list[Deviation | None]:
    """Compare the means of every site with those of the others.

    Args:
        plan: the plan.
        sites: the number of sites that `read` returns.
        read: returns the statistics of all sites; it is called once for each block of steps.

    Returns:
        The deviation of each site, in the order of `read`; None if no class of the site can be
        compared.
    """
    sums = torch.zeros(3, sites, len(plan.classes), dtype=torch.float64)
    distances, norms, steps = sums

    for _, values in _blocks(plan, sites, read):
        for y in range(len(plan.classes)):
            of_class = values[:, :, y]
            ordered, count = _in_order(of_class)
            compared = ~of_class[:, :, 0].isnan() & (count >= FEWEST_COMPARED)
            difference = (of_class - _median(ordered, count)).double().square().sum(2)
            distances[:, y] += torch.where(compared, difference, 0.0).sum(1)
            norms[:, y] += torch.where(compared, of_class.double().square().sum(2), 0.0).sum(1)
            steps[:, y] += compared.sum(1)

    distance, norm = _relative(distances, steps), _relative(norms, steps)
    return [
        Deviation(float(distance[k]), float(norm[k])) if steps[k].any() else None
        for k in range(sites)
    ]


def _relative(
    squares: Float64[Tensor, "sites classes"], steps: Float64[Tensor, "sites classes"]
) -> Float64[Tensor, " sites"]:
    """Divide root mean squares by their median over the sites, and average over the classes."""
    roots = (squares / steps).sqrt()  # NaN where there are no steps
    usual = roots.nanquantile(0.5, dim=0)
    ratios = torch.where(roots == usual, 1.0, roots / usual)  # 0 / 0 is 1: the site is as usual
    return torch.where(roots.isnan(), torch.nan, ratios).nanmean(1)


def _blocks(
    plan: Plan, sites: int, read: ReadSites
) -> Iterator[tuple[int, Float32[Tensor, "sites S classes r"]]]:
    """Yield blocks of steps: the first step, and the means of all sites, NaN where absent."""
    classes, width = len(plan.classes), statistics_width(plan)
    size = max(1, BLOCK_NUMBERS // (sites * classes * width))

    for first in range(0, plan.steps, size):
        steps = min(size, plan.steps - first)
        values = torch.full((sites, steps, classes, width), torch.nan)
        for k, site in enumerate(read()):
            low, high = torch.searchsorted(site.steps, torch.tensor([first, first + steps]))
            rows = slice(int(low), int(high))
            values[k, site.steps[rows, None] - first, site.classes] = site.means(rows)
        yield first, values


def _in_order(
    values: Float32[Tensor, "sites S r"],
) -> tuple[Float32[Tensor, "sites S r"], Int64[Tensor, " S"]]:
    """Sort every coordinate over the sites, NaN last, and count the sites of each step."""
    return values.sort(0).values, (~values[:, :, 0].isnan()).sum(0)


def _median(
    ordered: Float32[Tensor, "sites S r"], count: Int64[Tensor, " S"]
) -> Float32[Tensor, "S r"]:
    """Compute the coordinate-wise median of the first `count` sites; NaN if there are none."""
    steps = torch.arange(len(count))
    lower, upper = (count - 1).clamp_min(0) // 2, count // 2
    return ordered[lower, steps] / 2 + ordered[upper, steps] / 2  # the sum could overflow


def _trimmed_mean(
    ordered: Float32[Tensor, "sites S r"], count: Int64[Tensor, " S"], trim: int
) -> Float32[Tensor, "S r"]:
    """Average the first `count` sites without `trim` at each end, or all if too few are left."""
    left_out = torch.where(count > 2 * trim, trim, 0)
    rank = torch.arange(len(ordered))[:, None]
    kept = (rank >= left_out) & (rank < count - left_out)
    total = torch.where(kept[:, :, None], ordered.double(), 0.0).sum(0)
    return (total / (count - 2 * left_out)[:, None]).float()
