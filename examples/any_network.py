"""Train any torch network on a distilled set: nothing of the set is particular to collabdm's own
networks.

    python examples/any_network.py server/digits.safetensors --data digits

The network here is three lines of torch; put yours in its place.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from collabdm import load, read_distilled, training_set
from collabdm.images import as_float


def main() -> None:
    """Train, test, print one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    made = read_distilled(arguments.set)
    data = training_set(made)  # with pae: the small images, enlarged
    normalise = made.plan.image.normalisation.apply
    channels, side, _ = data.shape

    torch.manual_seed(arguments.seed)
    network = nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * (side // 2) ** 2, len(data.classes))),
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    batches = DataLoader(
        TensorDataset(normalise(data.images), data.labels), batch_size=64, shuffle=True
    )
    for _ in range(arguments.epochs):
        for x, y in batches:
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimiser.step()

    test = load(arguments.data, "test")
    with torch.no_grad():
        right = network(normalise(as_float(test.images))).argmax(1) == test.labels
    print(
        f"{len(data)} images, accuracy {100 * right.double().mean():.1f} % "
        f"on {len(test):,} test images"
    )


if __name__ == "__main__":
    main()
