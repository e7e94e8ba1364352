import pytest
import torch

from convvae.training.augment import draw_moves
from convvae.training.augment import moved as move

IMAGES = torch.arange(3 * 2 * 4 * 5, dtype=torch.uint8).reshape(3, 2, 4, 5)


def moved(*moves, images=IMAGES, index=None):
    index = torch.arange(len(moves)) if index is None else index
    return move(images[index], torch.tensor(moves))


def test_an_image_that_is_not_moved_is_itself():
    assert torch.equal(moved((0, 0, 0), (0, 0, 0), index=torch.tensor([2, 1])), IMAGES[[2, 1]])
    assert torch.equal(move(IMAGES, None), IMAGES)


def test_a_flip_is_from_left_to_right():
    assert torch.equal(moved((1, 0, 0))[0], IMAGES[0].flip(-1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_shift_repeats_the_edge(dtype):
    images = IMAGES.to(dtype)
    (x,) = moved((0, 1, -2), images=images)  # one pixel down, two to the left
    assert x.dtype == dtype
    assert torch.equal(x[:, 1:, :3], images[0][:, :-1, 2:])
    assert torch.equal(x[:, 0], x[:, 1])
    assert torch.equal(x[:, :, 3], x[:, :, 2])
    assert torch.equal(x[:, :, 4], x[:, :, 2])


def test_a_flipped_image_is_shifted_after_the_flip():
    (x,) = moved((1, 0, 1))
    (shifted,) = move(IMAGES[:1].flip(-1), torch.tensor([(0, 0, 1)]))
    assert torch.equal(x[:, :, 1:], IMAGES[0].flip(-1)[:, :, :-1])
    assert torch.equal(x, shifted)


@pytest.mark.parametrize(
    ("kind", "flips", "shifts"), [("flip", 1, 0), ("shift", 0, 4), ("flip-shift", 1, 4)]
)
def test_moves_are_those_asked_for_and_a_function_of_seed_and_position(kind, flips, shifts):
    moves = draw_moves(kind, 2000, (64, 32), 0, 500)
    assert moves.shape == (2000, 3)
    assert moves[:, 0].unique().tolist() == list(range(flips + 1))
    reach = {4: list(range(-4, 5)), 0: [0]}[shifts]
    assert moves[:, 1].unique().tolist() == reach
    assert moves[:, 2].abs().max() == shifts // 2
    if flips:
        assert moves[:, 0].float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(moves, draw_moves(kind, 2000, (64, 32), 0, 500))
    assert not torch.equal(moves, draw_moves(kind, 2000, (64, 32), 0, 628))
    assert not torch.equal(moves, draw_moves(kind, 2000, (64, 32), 1, 500))


def test_nothing_is_drawn_where_nothing_moves():
    assert draw_moves("none", 10, (8, 8), 0, 0) is None


def test_small_images_are_shifted_by_a_pixel():
    assert draw_moves("shift", 100, (8, 8), 0, 0).abs().max() == 1
