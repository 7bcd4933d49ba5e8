"""Train any PyTorch network on a distilled set: the set does not require collabdm's own networks.

    python examples/any_network.py server/digits.safetensors --data digits

Replace `small_network` by a network of your own.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from collabdm import load, read_distilled, training_set
from collabdm.images import as_float


def small_network(channels: int, side: int, classes: int) -> nn.Module:
    """One convolution and a linear classifier."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * (side // 2) ** 2, classes)),
    )


def train(network: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train a network in place, on images in network units."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    batches = DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True)

    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()


def main() -> None:
    """Train on a set, test on real images, print the accuracy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", help="file of a distilled set")
    parser.add_argument("--data", default="digits", help="data set to test on")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    distilled = read_distilled(arguments.set)
    data = training_set(distilled)  # with pae: the small images, enlarged
    normalise = distilled.plan.image.normalisation.apply
    channels, side, _ = data.shape

    torch.manual_seed(arguments.seed)
    network = small_network(channels, side, len(data.classes))
    train(network, normalise(data.images), data.labels, arguments.epochs)

    test = load(arguments.data, "test")
    with torch.no_grad():
        correct = network(normalise(as_float(test.images))).argmax(1) == test.labels
    accuracy = 100 * correct.double().mean()
    print(f"{len(data)} images, accuracy {accuracy:.1f} % on {len(test):,} test images")


if __name__ == "__main__":
    main()
