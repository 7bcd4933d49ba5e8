"""Arguments of a wrong type are refused by name, with the way to a right one.

The calls run in a process of their own, since the tests check every annotation, and users do not.
"""

import json
import subprocess
import sys

import pytest

CALLS = """
import json
import sys
from pathlib import Path

import numpy as np
import torch

from collabdm import CollabDMError, ImageSet, contribute, distill, load, plan_for

sys.path.insert(0, sys.argv[1])
from tiny import tiny_data, tiny_plan

plan, data, pixels = tiny_plan(), tiny_data((4, 4, 4)), np.zeros((4, 1, 8, 8), dtype=np.uint8)
calls = {
    "an array as a reference set": lambda: plan_for(pixels),
    "a name as a reference set": lambda: plan_for("digits"),
    "an array as data": lambda: contribute(plan, pixels, "north"),
    "a pair as data": lambda: contribute(plan, (pixels, pixels), "north"),
    "swapped": lambda: contribute(data, plan, "north"),
    "a number as a name": lambda: contribute(plan, data, 1),
    "a device as a context": lambda: contribute(plan, data, "north", "cpu"),
    "images as an array": lambda: ImageSet(pixels, np.zeros(4, dtype=np.int64), ("cat", "dog")),
    "labels as a list": lambda: ImageSet(torch.from_numpy(pixels), [0, 0, 1, 1], ("cat", "dog")),
    "a path": lambda: distill(plan, Path("north.safetensors")),
    "a path as text": lambda: distill(plan, "north.safetensors"),
    "a list of paths": lambda: distill(plan, ["north.safetensors"]),
    "a single contribution": lambda: distill(plan, contribute(plan, data, "north")),
    "a misspelt setting": lambda: plan_for(data, sits=2),
    "a name of a network": lambda: plan_for(data, network="ConvNet"),
    "names without their number": lambda: plan_for(data, site_names=("north", "south")),
}
refused = {}
for name, call in calls.items():
    try:
        call()
    except CollabDMError as error:
        refused[name] = f"{type(error).__name__}: {error}"
print(json.dumps(refused))
"""


@pytest.fixture(scope="module")
def refused(request: pytest.FixtureRequest) -> dict[str, str]:
    support = request.config.rootpath / "tests" / "support"
    command = [sys.executable, "-c", CALLS, str(support)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("an array as a reference set", "DataError: `data` should have type ImageSet; found ndarr"),
        (
            "a name as a reference set",
            "DataError: `data` should have type ImageSet; found str: mak",
        ),
        (
            "an array as data",
            "DataError: `data` should have type ImageSet; found ndarray: make one",
        ),
        ("a pair as data", "DataError: `data` should have type ImageSet; found tuple: make one wi"),
        ("swapped", "PlanError: `plan` should have type Plan; found ImageSet: make it with `plan_"),
        ("a number as a name", "PlanError: `site` should have type str; found int: name the site"),
        ("a device as a context", "PlanError: `context` should have type RunContext; found str: "),
        ("images as an array", "DataError: `images` should have type Tensor; found ndarray: conv"),
        ("labels as a list", "DataError: `labels` should have type Tensor; found list: convert it"),
        ("a path", "DocumentError: `contributions` should have type list; found PosixPath: read "),
        ("a path as text", "DocumentError: `contributions` should have type list; found str: read"),
        ("a list of paths", "DocumentError: each of `contributions` should have type Contribution"),
        ("a single contribution", "DocumentError: `contributions` should have type list; found C"),
        ("a misspelt setting", "PlanError: `sits` is not a setting: did you mean sites?"),
        (
            "a name of a network",
            "PlanError: `network` should be an object, in Python a dictionary",
        ),
        ("names without their number", "PlanError: `site_names` should be 5 distinct names, one f"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_name_and_type(refused, call, message) -> None:
    assert refused[call].startswith(message)
