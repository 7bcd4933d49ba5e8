import json

import numpy as np
import pytest
import torch

from collabdm.data.partition import (
    Partition,
    by_column,
    dirichlet,
    dirichlet_shares,
    iid,
    site_names,
)
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.images import ImageSet
from collabdm.seeds import Purpose, Stream

LABELS = torch.arange(1000) % 10


def data_of(labels: torch.Tensor) -> ImageSet:
    images = torch.arange(len(labels)).remainder(256).to(torch.uint8).view(-1, 1, 1, 1)
    return ImageSet(images, labels, tuple(str(y) for y in range(10)))


def given(partition: Partition) -> list[int]:
    return sorted(torch.cat(partition.index).tolist())


def lists(partition: Partition) -> list[list[int]]:
    return [index.tolist() for index in partition.index]


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    first = lists(dirichlet(LABELS, 10, 5, 0.1, seed=1))
    assert first == lists(dirichlet(LABELS, 10, 5, 0.1, seed=1))
    assert first != lists(dirichlet(LABELS, 10, 5, 0.1, seed=2))


def test_the_split_of_a_small_set_never_changes() -> None:
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    assert lists(dirichlet(labels, 2, 3, 0.5, seed=0)) == [
        [2, 3, 4, 5, 8, 9, 10, 11],
        [1],
        [0, 6, 7],
    ]


@pytest.mark.parametrize("beta", [0.05, 0.5, 2.0])
def test_shares_have_the_mean_and_variance_of_the_dirichlet_distribution(beta: float) -> None:
    K = 4
    draws = np.stack(
        [dirichlet_shares(Stream.of(9, Purpose.PARTITION, t), K, beta) for t in range(4000)]
    )
    variance = (K - 1) / (K**2 * (K * beta + 1))
    assert draws.mean(axis=0) == pytest.approx(1 / K, abs=4 * np.sqrt(variance / 4000))
    assert draws.var(axis=0) == pytest.approx(variance, rel=0.15)


def test_a_tiny_beta_gives_each_class_to_one_site() -> None:
    counts = dirichlet(LABELS, 10, 5, 1e-6, seed=0).counts(data_of(LABELS))
    assert counts.max(dim=0).values.tolist() == [100] * 10


def test_a_huge_beta_gives_each_class_to_all_sites_evenly() -> None:
    counts = dirichlet(LABELS, 10, 5, 1e6, seed=0).counts(data_of(LABELS))
    assert 19 <= int(counts.min()) <= int(counts.max()) <= 21


def test_the_class_floor_hands_every_site_that_many_images_of_every_class() -> None:
    assert int(dirichlet(LABELS, 10, 5, 1e-3, seed=0).counts(data_of(LABELS)).min()) == 0
    floored = dirichlet(LABELS, 10, 5, 1e-3, seed=0, class_floor=10)
    assert int(floored.counts(data_of(LABELS)).min()) >= 10


def test_a_class_smaller_than_the_floor_is_refused() -> None:
    with pytest.raises(PlanError, match=r"5 sites x 21 .* = 105 images; found 100"):
        dirichlet(LABELS, 10, 5, 0.1, seed=0, class_floor=21)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_a_beta_that_is_not_positive_and_finite_is_refused(beta: float) -> None:
    with pytest.raises(PlanError, match="`beta`"):
        dirichlet(LABELS, 10, 5, beta, seed=0)


def test_labels_outside_the_classes_are_refused() -> None:
    with pytest.raises(DataError, match=r"0 \.\. 4; found 0 \.\. 9"):
        dirichlet(LABELS, 5, 5, 0.1, seed=0)


def test_a_site_may_be_empty() -> None:
    partition = dirichlet(torch.zeros(5, dtype=torch.int64), 1, 3, 1e-6, seed=0)
    assert sum(len(index) == 0 for index in partition.index) == 2
    assert all(len(index) for index in iid(6, 3, seed=0).index)


def test_an_even_split_gives_numbers_of_images_that_differ_by_one_at_most() -> None:
    partition = iid(1001, 4, seed=0)
    assert given(partition) == list(range(1001))
    assert sorted(len(index) for index in partition.index) == [250, 250, 250, 251]
    assert partition.names == ("site-1", "site-2", "site-3", "site-4")


def test_a_column_names_the_sites() -> None:
    partition = by_column(["b", "a", "b", "c"])
    assert partition.names == ("a", "b", "c")
    assert lists(partition) == [[1], [0, 2], [3]]


def test_the_sites_have_the_images_at_their_positions() -> None:
    data = data_of(LABELS)
    partition = dirichlet(LABELS, 10, ["north", "south"], 0.3, seed=4)
    sites = partition.sites(data)
    assert list(sites) == ["north", "south"]
    assert torch.equal(sites["south"].images, data.images[partition.index[1]])
    assert torch.equal(
        partition.counts(data), torch.stack([sites["north"].counts(), sites["south"].counts()])
    )


def test_a_saved_partition_is_replayed_exactly(tmp_path) -> None:
    partition = dirichlet(LABELS, 10, ["nörth", "south", "empty"], 0.01, seed=4)
    partition.save(tmp_path / "partition.json")
    again = Partition.load(tmp_path / "partition.json")
    assert (again.names, lists(again), again.size) == (
        partition.names,
        lists(partition),
        partition.size,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["partition.json"]


def test_a_partition_of_another_set_is_refused() -> None:
    with pytest.raises(DataError, match="a set of 1000 images; found one of 990"):
        iid(1000, 2, seed=0).sites(data_of(LABELS[:990]))


def test_an_image_of_two_sites_is_refused() -> None:
    with pytest.raises(DataError, match=r"found more than once: \[2\] \(1 in all\)"):
        Partition(("a", "b"), (torch.tensor([1, 2]), torch.tensor([2, 3])), 4)


def test_a_position_outside_the_set_is_refused() -> None:
    with pytest.raises(DataError, match=r"0 \.\. 3; found 1 \.\. 4"):
        Partition(("a",), (torch.tensor([1, 4]),), 4)


GOOD = {
    "format": "collabdm-partition",
    "version": 1,
    "size": 3,
    "sites": [{"name": "a", "index": [0, 1]}, {"name": "b", "index": [2]}],
}


@pytest.mark.parametrize(
    "change",
    [
        {"format": "something else"},
        {"version": 2},
        {"size": -1},
        {"size": 2},
        {"sites": []},
        {"sites": [{"name": "a", "index": [0, 0]}]},
        {"sites": [{"name": "a", "index": [0]}, {"name": "a", "index": [1]}]},
        {"sites": [{"name": "a", "index": [-1]}]},
        {"sites": [{"name": "a", "index": [0.5]}]},
        {"sites": [{"name": "a", "index": [2**70]}]},
        {"sites": [{"name": "a", "index": ["0"]}]},
        {"more": 1},
    ],
)
def test_a_file_that_is_not_a_partition_is_refused_by_name(tmp_path, change: dict) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(GOOD))
    assert lists(Partition.load(path)) == [[0, 1], [2]]
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(DocumentError, match=r"p\.json"):
        Partition.load(path)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[]"])
def test_bytes_that_are_not_json_are_refused(tmp_path, text: bytes) -> None:
    (tmp_path / "p.json").write_bytes(text)
    with pytest.raises(DocumentError, match="saved partition"):
        Partition.load(tmp_path / "p.json")


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(DocumentError, match="saved partition"):
        Partition.load(tmp_path / "absent.json")


@pytest.mark.parametrize("sites", [0, [], ["a", "a"], [""], "abc"])
def test_sites_without_a_name_of_their_own_are_refused(sites) -> None:
    with pytest.raises(PlanError):
        site_names(sites)
