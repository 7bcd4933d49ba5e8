"""Augmentation: each operation by its formula, partition-and-expand, gradients."""

import math

import pytest
import torch
from tiny import ramp

from collabdm.documents.specs import OPERATIONS
from collabdm.matching.augment import Draws, augment, draw, expand, identity, mosaic
from collabdm.seeds import Purpose, Stream

SIDE = 8
FORMULAS = range(40)  # positions of many draws, so that every strength occurs


def drawn(operation: str, m: int = len(FORMULAS), side: int = SIDE) -> tuple[Draws, torch.Tensor]:
    """Draws of one operation, and the uniforms they are made of."""
    draws = draw((operation,), m, side, Stream.of(3, Purpose.AUGMENT))
    return draws, Stream.of(3, Purpose.AUGMENT).uniforms(m, 5)


def picture(channels: int = 1, side: int = SIDE) -> torch.Tensor:
    """Pixels that are all distinct, small integers: sums of them are exact in float32."""
    order = Stream.of(1, Purpose.PROBE).permutation(channels * side * side)
    return (order + 1).float().reshape(1, channels, side, side)


def noise(n: int, channels: int = 3) -> torch.Tensor:
    return Stream.of(2, Purpose.PROBE).uniforms(n, channels, SIDE, SIDE) * 4 - 2


def each(operation: str, x: torch.Tensor) -> list[tuple[torch.Tensor, list[float]]]:
    """The picture x transformed by every draw, with the uniforms of the draw."""
    draws, uniforms = drawn(operation)
    out = augment(x.repeat(len(FORMULAS), 1, 1, 1), draws)
    return [(out[i : i + 1], uniforms[i].tolist()) for i in FORMULAS]


def bilinear(plane: torch.Tensor, row: float, column: float) -> float:
    """The value between four pixels; zero outside."""
    top, left = math.floor(row), math.floor(column)
    total = 0.0
    for i, j in [(top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)]:
        if 0 <= i < SIDE and 0 <= j < SIDE:
            total += float(plane[i, j]) * (1 - abs(row - i)) * (1 - abs(column - j))
    return total


def resampled(x: torch.Tensor, matrix: list[list[float]]) -> torch.Tensor:
    """x read at matrix @ (x, y), in coordinates around the centre, pixel by pixel."""
    out, centre = torch.zeros_like(x), (SIDE - 1) / 2
    for i in range(SIDE):
        for j in range(SIDE):
            across = matrix[0][0] * (j - centre) + matrix[0][1] * (i - centre)
            down = matrix[1][0] * (j - centre) + matrix[1][1] * (i - centre)
            out[0, 0, i, j] = bilinear(x[0, 0], down + centre, across + centre)
    return out


def test_identity_draws_change_nothing() -> None:
    assert torch.equal(augment(picture(), identity(1)), picture())
    torch.testing.assert_close(augment(noise(5), identity(5)), noise(5))


def test_an_empty_policy_draws_identities_and_uses_no_random_words() -> None:
    stream = Stream.of(0, Purpose.AUGMENT)
    draws, expected = draw((), 3, SIDE, stream), identity(3)
    assert torch.equal(draws.colour, expected.colour)
    assert torch.equal(draws.affine, expected.affine)
    assert torch.equal(draws.box, expected.box)
    assert stream.words(1).tolist() == Stream.of(0, Purpose.AUGMENT).words(1).tolist()


def test_colour_shifts_then_scales_around_the_mean_of_channels_then_around_the_mean_of_all() -> (
    None
):
    x = noise(1)
    for actual, (_, u1, u2, u3, _) in each("color", x):
        shifted = x + (u1 - 0.5)
        grey = (shifted[:, 0] + shifted[:, 1] + shifted[:, 2])[:, None] / 3
        saturated = (shifted - grey) * 2 * u2 + grey
        level = saturated.sum() / saturated.numel()
        torch.testing.assert_close(actual, (saturated - level) * (u3 + 0.5) + level)


def test_colour_of_a_grey_image_has_no_saturation() -> None:
    x = noise(1, channels=1)
    for actual, (_, u1, _, u3, _) in each("color", x):
        shifted = x + (u1 - 0.5)
        torch.testing.assert_close(actual, (shifted - shifted.mean()) * (u3 + 0.5) + shifted.mean())


def test_crop_is_an_integer_shift_with_zeros_outside() -> None:
    x, shifts = picture(), set()
    for actual, (_, u1, u2, *_) in each("crop", x):
        across, down = math.floor(u1 * 3) - 1, math.floor(u2 * 3) - 1
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        assert torch.equal(actual, padded[:, :, 1 + down : 9 + down, 1 + across : 9 + across])
        shifts.add((across, down))
    assert len(shifts) == 9


@pytest.mark.parametrize(("side", "reach"), [(8, 1), (28, 4), (32, 4), (64, 8)])
def test_crop_reaches_an_eighth_of_the_side(side: int, reach: int) -> None:
    draws, _ = drawn("crop", 2000, side)
    pixels = (draws.affine[:, :, 2] * side / 2).round()
    torch.testing.assert_close(pixels * 2 / side, draws.affine[:, :, 2])
    assert pixels.unique().tolist() == list(range(-reach, reach + 1))


def test_cutout_zeroes_its_box_and_nothing_else() -> None:
    x = picture()
    for actual, (_, u1, u2, *_) in each("cutout", x):
        left, top = math.floor(u1 * 9) - 2, math.floor(u2 * 9) - 2
        expected = x.clone()
        expected[:, :, max(top, 0) : top + 4, max(left, 0) : left + 4] = 0
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("side", [8, 11, 32])
def test_the_cutout_square_has_half_the_side_and_its_centre_in_the_image(side: int) -> None:
    draws, _ = drawn("cutout", 2000, side)
    left, right, top, bottom = draws.box.unbind(1)
    assert (
        (right - left).unique().tolist()
        == (bottom - top).unique().tolist()
        == [side // 2 + side % 2]
    )
    for edge in (left, top):
        assert float(edge.min()) == -(side // 4 + (side % 4 > 1))
        assert float(edge.max()) <= side - 1
    assert torch.equal(draws.box, draws.box.round())


def test_flip_mirrors_left_and_right_for_half_of_the_draws() -> None:
    x, mirrored = picture(), 0
    for actual, (_, u1, *_) in each("flip", x):
        assert torch.equal(actual, x.flip(-1) if u1 < 0.5 else x)
        mirrored += u1 < 0.5
    assert 8 < mirrored < 32


def test_scale_reads_each_axis_by_its_own_factor() -> None:
    x = noise(1, channels=1)
    for actual, (_, u1, u2, *_) in each("scale", x)[:6]:
        across, down = (u * (1.2 - 1 / 1.2) + 1 / 1.2 for u in (u1, u2))
        torch.testing.assert_close(
            actual, resampled(x, [[across, 0], [0, down]]), rtol=1e-4, atol=1e-4
        )


def test_rotate_reads_along_turned_axes() -> None:
    x = noise(1, channels=1)
    for actual, (_, u1, *_) in each("rotate", x)[:6]:
        angle = math.radians((2 * u1 - 1) * 15)
        turned = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        torch.testing.assert_close(actual, resampled(x, turned), rtol=1e-4, atol=1e-4)


def test_every_operation_of_a_policy_is_drawn_as_often_as_the_others() -> None:
    draws = draw(OPERATIONS, 6000, SIDE, Stream.of(5, Purpose.AUGMENT))
    uniforms = Stream.of(5, Purpose.AUGMENT).uniforms(6000, 5)
    still = identity(6000)
    of_colour = (draws.colour != still.colour).any(1)
    of_box = (draws.box != still.box).any(1)
    assert int(of_colour.sum()) == pytest.approx(1000, rel=0.15)
    assert torch.equal(of_colour, uniforms[:, 0] < 1 / 6)
    assert torch.equal(of_box, (uniforms[:, 0] * 6).floor() == 2)


def test_draws_never_change() -> None:
    draws = draw(OPERATIONS, 8, SIDE, Stream.of(0, Purpose.AUGMENT))
    still = identity(8)
    torch.testing.assert_close(
        draws.colour[0], torch.tensor([0.09576237, 0.92775822, 0.82977444]), rtol=0, atol=1e-7
    )
    assert draws.box[1].tolist() == [0, 4, 5, 9]
    assert draws.box[2].tolist() == [-2, 2, 0, 4]
    assert draws.affine[3].tolist() == [[1, 0, 0.25], [0, 1, 0.25]]
    assert draws.affine[4].tolist() == [[-1, 0, 0], [0, 1, 0]]
    assert torch.equal(draws.affine[:3], still.affine[:3])
    assert torch.equal(draws.box[3:], still.box[3:])


def test_a_batch_augmented_at_once_is_augmented_one_by_one() -> None:
    x, draws = noise(30), draw(OPERATIONS, 30, SIDE, Stream.of(6, Purpose.AUGMENT))
    one_by_one = [augment(x[i : i + 1], draws.rows(torch.tensor([i]))) for i in range(30)]
    torch.testing.assert_close(augment(x, draws), torch.cat(one_by_one))


def test_images_of_a_class_share_their_draw() -> None:
    draws = draw(OPERATIONS, 3, SIDE, Stream.of(6, Purpose.AUGMENT))
    x = noise(1).repeat(4, 1, 1, 1)
    out = augment(x, draws.rows(torch.tensor([2, 0, 2, 1])))
    assert torch.equal(out[0], out[2])
    assert not torch.equal(out[0], out[1])
    torch.testing.assert_close(out[3:], augment(x[:1], draws.rows(torch.tensor([1]))))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_affine_in_the_image_with_the_same_gradient(operation: str) -> None:
    draws, _ = drawn(operation, 6)
    x, weights, change = noise(18).reshape(3, 6, 3, SIDE, SIDE)
    x.requires_grad_()
    before, after = (
        (weights * augment(x, draws)).sum(),
        (weights * augment(x + change, draws)).sum(),
    )
    (gradient,) = torch.autograd.grad(before, x)
    assert float(gradient.abs().max()) > 0.1
    torch.testing.assert_close((gradient * change).sum(), after - before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_expanded_tiles_packed_again_are_the_image_where_tiles_are_of_one_colour(
    factor: int,
) -> None:
    small = ramp(2, 3, factor, factor)
    images = small.repeat_interleave(SIDE // factor, 2).repeat_interleave(SIDE // factor, 3)
    tiles = expand(images, factor)
    assert tiles.shape == (2 * factor**2, 3, SIDE, SIDE)
    torch.testing.assert_close(mosaic(tiles, factor), images)


def test_tiles_are_in_order_row_by_row() -> None:
    image = torch.zeros(1, 1, SIDE, SIDE)
    image[..., :4, 4:], image[..., 4:, :4], image[..., 4:, 4:] = 1, 2, 3
    tiles = expand(torch.cat([image, image + 4]), 2)
    assert tiles.flatten(1).amax(1).tolist() == tiles.flatten(1).amin(1).tolist() == list(range(8))
    assert torch.equal(mosaic(tiles, 2), torch.cat([image, image + 4]))


def test_expand_enlarges_a_tile_bilinearly_and_mosaic_averages() -> None:
    image = noise(1)
    tile = torch.nn.functional.interpolate(image[:, :, :4, 4:], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(expand(image, 2)[1:2], tile)
    four = noise(4)
    block = four[1, :, 2:4, 6:8].mean((1, 2))
    torch.testing.assert_close(mosaic(four, 2)[0, :, 1, 4 + 3], block)


def test_factor_one_is_the_identity() -> None:
    assert torch.equal(expand(noise(3), 1), noise(3))
    assert torch.equal(mosaic(noise(3), 1), noise(3))


def test_the_gradient_of_expand_is_that_of_its_differences() -> None:
    assert torch.autograd.gradcheck(lambda x: expand(x, 2), noise(1).double().requires_grad_())
