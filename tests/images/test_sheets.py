import pytest
import torch
from PIL import Image

from convvae.errors import OutputError
from convvae.images.sheets import (
    GAP,
    PAPER,
    grid,
    joint_grid,
    paired_grid,
    png,
    save_gif,
    save_png,
    tiles,
    to_rgba,
)


def numbered(count, channels=1, height=3, width=4):
    """Images of one value each: 1, 2, 3, ..."""
    values = torch.arange(1, count + 1, dtype=torch.uint8)
    return values.view(-1, 1, 1, 1).expand(count, channels, height, width)


def cell(sheet, row, column, height=3, width=4):
    top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
    return sheet[:, top : top + height, left : left + width]


def test_128_samples_fill_8_rows_of_16():
    sheet = grid(numbered(128), rows=8)
    assert sheet.shape == (1, 8 * 5 + 2, 16 * 6 + 2)
    for row, column in [(0, 0), (0, 15), (1, 0), (7, 15)]:
        assert (cell(sheet, row, column) == row * 16 + column + 1).all()
    assert (sheet[:, :GAP] == PAPER).all()
    assert (sheet[:, :, 6 : 6 + GAP] == PAPER).all()


@pytest.mark.parametrize(
    ("count", "rows", "layout"), [(1, 8, (1, 1)), (5, 2, (2, 3)), (9, 8, (5, 2)), (3, 8, (3, 1))]
)
def test_few_images_leave_no_empty_row(count, rows, layout):
    sheet = grid(numbered(count), rows)
    assert sheet.shape == (1, layout[0] * 5 + GAP, layout[1] * 6 + GAP)


def test_floats_are_rounded_to_the_nearest_level():
    image = torch.tensor([0.0, 0.5, 1.0, 2.0]).view(4, 1, 1, 1)
    assert [int(cell(grid(image, 1), 0, i, 1, 1)) for i in range(4)] == [0, 128, 255, 255]


def test_pairs_stand_side_by_side():
    originals, copies = numbered(4), numbered(4) + 100
    sheet = paired_grid(originals, copies, rows=2)
    assert sheet.shape == (1, 2 * 5 + GAP, 2 * (8 + GAP) + GAP)
    third = cell(sheet, 1, 0, 3, 8)
    assert (third[..., :4] == 3).all()
    assert (third[..., 4:] == 103).all()


def test_joint_is_reconstructions_a_blank_row_and_samples():
    sheet = joint_grid(numbered(16), numbered(16) + 100, rows=8)
    half = 8 * 5 + GAP
    assert sheet.shape == (1, 2 * half + 3, 2 * 6 + GAP)
    assert (sheet[:, half : half + 3] == PAPER).all()
    assert (cell(sheet, 7, 1) == 16).all()
    assert (cell(sheet[:, half + 3 :], 7, 1) == 116).all()


def test_joint_of_unequal_halves():
    sheet = joint_grid(numbered(2), numbered(16), rows=8)
    assert sheet.shape == (1, (2 * 5 + GAP) + 3 + (8 * 5 + GAP), 2 * 6 + GAP)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_pictures_of_every_channel_count(channels, mode, tmp_path):
    sheet = joint_grid(numbered(3, channels), numbered(3, channels))
    save_png(tmp_path / "a.png", sheet)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == mode
        assert image.size == (sheet.shape[2], sheet.shape[1])
        if mode.endswith("A"):
            assert image.getpixel((0, 0))[-1] == 255


def test_the_same_sheet_gives_the_same_bytes(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.PNG"]
    for path in paths:
        save_png(path, grid(numbered(9)))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_another_format_than_png_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"ends in \.png"):
        save_png(tmp_path / "a.jpg", grid(numbered(2)))


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        save_png(tmp_path / "file" / "a.png", grid(numbered(2)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_image_becomes_red_green_blue_and_opaque(channels):
    image = torch.arange(10, 10 + channels, dtype=torch.uint8).view(1, channels, 1, 1)
    expected = {1: [10, 10, 10, 255], 2: [10, 10, 10, 11], 3: [10, 11, 12, 255]}
    assert to_rgba(image).flatten().tolist() == expected.get(channels, [10, 11, 12, 13])


def test_tiles_stand_apart_on_a_transparent_ground():
    sheet = tiles(numbered(6).view(2, 3, 1, 3, 4), gap=(1, 2))
    assert sheet.shape == (4, 2 * 4 + 1, 3 * 6 + 2)
    assert (sheet[0, 5:8, 14:18] == 6).all()
    assert (sheet[3, 5:8, 14:18] == 255).all()
    assert sheet[3].sum() == 6 * 12 * 255
    assert tiles(numbered(6).view(2, 3, 1, 3, 4), gap=(0, 0)).shape == (4, 6, 12)


def test_an_animation_goes_there_and_back_and_stays_at_its_ends(tmp_path):
    frames = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 1, 8, 6)
    for name in ("a.gif", "b.gif"):
        save_gif(tmp_path / name, frames, seconds=1)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    levels, lasting = [], []
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.size == (6 * 24, 8 * 24)
        for frame in range(animation.n_frames):
            animation.seek(frame)
            levels.append(animation.convert("L").getpixel((3, 3)))
            lasting.append(animation.info["duration"])
    assert levels == pytest.approx([0, 64, 128, 191, 255, 191, 128, 64], abs=2)
    assert lasting == [1000, 200, 200, 200, 1000, 200, 200, 200]


def test_png_bytes_are_those_of_the_file(tmp_path):
    save_png(tmp_path / "a.png", grid(numbered(4)))
    assert (tmp_path / "a.png").read_bytes() == png(grid(numbered(4)))
