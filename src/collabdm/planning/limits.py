"""Refuse plans that no machine should carry out, from their shapes alone and before any work.

A plan of a kilobyte can ask for terabytes: wide networks without pooling, sketches of wide
embeddings, millions of images. The limits are far above every plan of the paper and of the
documentation. They are computed by arithmetic on the shapes of the layers, so that checking a plan
costs nothing.
"""

import math
from collections.abc import Iterator

from collabdm.documents.extra_tensors import declared_bytes
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.matching.network_size import embedding_width, multiplications
from collabdm.methods.registry import contribution_spec
from collabdm.planning.cost import cost

MOST_WIDTH = 2**20  # numbers of an embedding without a sketch
MOST_MATRIX = 2**28  # numbers of a sketch, or of the classifier of a network
MOST_MULTIPLICATIONS = 10**11  # of one image in the network
MOST_FILE_BYTES = 2**34  # of a contribution
MOST_SET_BYTES = 2**32  # of the images of a distilled set


def check_limits(plan: Plan) -> None:
    """Check that a plan is within the limits of memory and work.

    Raises:
        PlanError: it is not; the message names every limit that it exceeds.
    """
    exceeded = [
        f"{what} should be at most {most:,}; the plan asks for {asked:,.0f}"
        for what, most, asked in _demands(plan)
        if asked > most
    ]
    if exceeded:
        raise PlanError("\n".join(exceeded))


def _demands(plan: Plan) -> Iterator[tuple[str, int, float]]:
    """Yield what a plan asks for: its name, the limit, and the number."""
    width, classes = embedding_width(plan.network, plan.image.shape), len(plan.classes)
    sketch = plan.sketch if plan.sketch is not None and plan.sketch < width else 0
    pixel_bytes = math.prod(plan.image.shape) * plan.image_dtype.itemsize
    file_bytes = cost(plan).file_bytes + declared_bytes(contribution_spec(plan).extra)

    yield "the width of the embedding", MOST_WIDTH, width
    yield "width times `sketch`", MOST_MATRIX, width * sketch
    yield "width times the number of classes", MOST_MATRIX, width * classes
    yield (
        "multiplications for one image",
        MOST_MULTIPLICATIONS,
        multiplications(plan.network, plan.image.shape),
    )
    yield "bytes of a contribution", MOST_FILE_BYTES, file_bytes
    yield "bytes of the distilled images", MOST_SET_BYTES, plan.ipc * classes * pixel_bytes
