"""Images that stand for many: of each cluster of a class, the image nearest to its centre (k-means, no draw).

    c_1 = the image nearest to the mean;  c_j = the image farthest from c_1 .. c_{j-1}      (Gonzalez 1985)
    then Lloyd:  a(x) = argmin_j |x - c_j|,  c_j = mean of {x : a(x) = j}
    the image nearest to each c_j, that of the largest cluster first

Distances are of pixels. With few images per class, random ones miss the rare kinds of a class that has many.

References: S. P. Lloyd, "Least squares quantization in PCM", 1982. T. F. Gonzalez, "Clustering to minimize the
maximum intercluster distance", 1985. Y. Liu et al., "DREAM: efficient dataset distillation by representative
matching", ICCV 2023 (clusters as the start of distillation).
"""

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

ROUNDS = 30


def representatives(images: Float32[Tensor, "n c h w"], most: int) -> Int64[Tensor, " m"]:
    """Positions of min(n, most) different images, one for each cluster, that of the largest cluster first."""
    points = images.flatten(1)
    if len(points) <= most:
        return torch.arange(len(points))
    centres = points[_farthest(points, most)].clone()
    for _ in range(ROUNDS):
        nearest = torch.cdist(points, centres).argmin(1)
        sizes = torch.bincount(nearest, minlength=most)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp_min(1), centres)
    distances = torch.cdist(centres, points)
    chosen: list[int] = []
    for cluster in sizes.argsort(descending=True, stable=True).tolist():
        distances[:, chosen] = torch.inf
        chosen.append(int(distances[cluster].argmin()))
    return torch.tensor(chosen)


def _farthest(points: Float32[Tensor, "n d"], most: int) -> Int64[Tensor, " m"]:
    """The point nearest to the mean, then again and again the one farthest from all before."""
    chosen = [int((points - points.mean(0)).square().sum(1).argmin())]
    distance = (points - points[chosen[0]]).square().sum(1)
    while len(chosen) < most:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)
