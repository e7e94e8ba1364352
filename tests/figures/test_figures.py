import io
import itertools

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from convvae import figures
from convvae.errors import OutputError
from convvae.figures.space import NAMED, _apart

SIZES = [(1, 8, 8), (3, 8, 24), (4, 24, 8), (2, 9, 11)]


def pictures(count, size=(1, 8, 8)):
    return torch.randint(256, (count, *size), dtype=torch.uint8)


def drawn(figure):
    """The figure as pixels: it can be drawn without a warning, and is not empty."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    pixels = np.asarray(Image.open(file).convert("L"))
    assert pixels.std() > 5
    return pixels


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def rows():
    row = {"event": "epoch", "train_kl": 1.0, "val_kl": 1.5, "validated_on": "validation"}
    return [
        {"event": "log", "images": 50, "loss": 12.0},
        {**row, "images": 100, "train_loss": 10.0, "val_loss": 9.0},
        {**row, "images": 200, "train_loss": 8.0, "val_loss": 8.5},
    ]


def test_the_training_curves_show_every_row_with_its_unit():
    figure = figures.training_curves(rows())
    loss, kl = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert lines["training, mean of the epoch"] == [[100, 10.0], [200, 8.0]]
    assert lines["validation"] == [[100, 9.0], [200, 8.5]]
    assert lines["training, single batches"] == [[50, 12.0]]
    assert kl.lines[1].get_xydata().tolist() == [[100, 1.5], [200, 1.5]]
    assert {axes.get_ylabel() for axes in figure.axes} == {"nats per image"}
    drawn(figure)


@pytest.mark.parametrize(
    ("of", "labels"),
    [
        ("test", {"training, mean of the epoch", "test images"}),
        # Rows of before: what stands in the place of the loss was not what single batches show.
        (
            None,
            {
                "training, mean of the epoch: −log p(x|z) + β KL",
                "test images: −log p(x|z) + β KL",
            },
        ),
    ],
)
def test_the_curves_are_called_what_they_are(of, labels):
    changed = [{**row, "validated_on": of} for row in rows()]
    if of is None:
        changed = [{k: v for k, v in row.items() if k != "validated_on"} for row in changed]
    figure = figures.training_curves(changed)
    (legend,) = figure.legends
    shown = {text.get_text() for text in legend.get_texts()}
    assert shown == labels | {"training, single batches"}
    drawn(figure)


def test_a_run_resumed_by_a_newer_version_does_not_join_two_quantities():
    old, new = rows()[1], rows()[2]
    del old["validated_on"]
    loss = figures.training_curves([old, new]).axes[0]
    assert [len(line.get_xydata()) for line in loss.lines] == [1, 1, 1, 1]


def test_the_frame_of_the_loss_leaves_the_first_tenth_of_the_epochs_out():
    epoch = {"event": "epoch", "train_kl": 1.0, "val_kl": 1.0}
    many = [
        {**epoch, "images": i, "train_loss": 100 / i, "val_loss": 100 / i} for i in range(1, 21)
    ]
    low, high = figures.training_curves(many).axes[0].get_ylim()
    assert low < 5
    assert 100 / 3 < high < 50


def test_one_epoch_of_a_constant_loss_can_be_drawn():
    drawn(figures.training_curves(rows()[1:2]))


@pytest.mark.parametrize("count", [1, 3, 256])
def test_bars_are_in_the_order_asked_for(count):
    values = torch.rand(count)
    order = values.argsort(descending=True)
    figure = figures.information(values, order, "KL, nats per image", mark=0.01)
    (axes,) = figure.axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx(sorted(values.tolist(), reverse=True))
    assert axes.get_xticklabels()[0].get_text() == str(int(order[0]))
    assert len(axes.get_xticklabels()) <= 24
    drawn(figure)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 12])
def test_pictures_of_any_size_and_number(size, count):
    images = pictures(count, size)
    titles = [f"a class with a long name {i}" for i in range(count)]
    figure = figures.reconstructions(images, images.float() / 255, titles)
    assert len(figure.axes) == -(-count // 10)
    assert "a class with …" in texts(figure)
    drawn(figure)
    drawn(figures.reconstructions(images, images))
    drawn(figures.samples(images))
    drawn(figures.class_means(images, images, titles))
    drawn(figures.interpolations([images.float() / 255], [images[0], images[-1]], ["straight"]))


def test_the_heat_map_is_brightest_where_the_error_is_largest():
    image = torch.zeros(1, 3, 8, 8)
    copy = image.clone()
    copy[0, :, 4, 5] = 0.9
    figure = figures.extremes(image, copy, ["7\n-12"], ["worst"])
    sheet = np.asarray(figure.axes[0].images[0].get_array()).astype(int)
    heat = sheet[-9:, :, :3].sum(2)
    brightest = np.unravel_index(heat[: 8 + 1].argmax(), heat.shape)
    assert heat.max() > 600
    assert (sheet.shape[0] - 9 + brightest[0], brightest[1]) == (
        sheet.shape[0] - 1 - 8 + 4,
        1 + 5,
    )
    assert "error" in texts(figure)
    drawn(figure)


@pytest.mark.parametrize(("count", "blocks"), [(1, 1), (9, 2), (17, 3)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_extremes_may_leave_the_last_block_unfilled(count, blocks, channels):
    images = torch.rand(count, channels, 8, 10)
    names = ["worst", *[""] * (blocks - 1)]
    figure = figures.extremes(images, images, ["name"] * count, names)
    assert texts(figure).count("name") == count
    drawn(figure)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("latents", [1, 5, 70])
def test_traversals_name_every_latent_and_where_it_walks(size, latents):
    images = torch.rand(latents, 3, *size)
    bounds = torch.tensor([[-2.25] * latents, [2.0] * latents])
    figure = figures.traversals(images, torch.arange(latents), bounds, torch.ones(latents))
    found = texts(figure)
    assert [f"z{i}  1.00" in found for i in range(latents)] == [True] * latents
    assert found.count("−2.2 to 2.0") == latents
    drawn(figure)
    assert "z0" in texts(figures.traversals(images, torch.arange(latents), bounds, None))


@pytest.mark.parametrize("size", SIZES)
def test_the_manifold_has_its_top_row_at_the_top_and_round_ticks(size):
    images = torch.zeros(5, 5, *size)
    images[0, 4] = 1
    figure = figures.manifold(images, torch.linspace(-3, 3, 5), ("latent z0", "latent z1"))
    (axes,) = figure.axes
    assert axes.images[0].get_array()[0, -1, 0] == 255
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "−3", "−2", "−1", "0", "1", "2", "3",
    ]  # fmt: skip
    low, high = axes.get_yticks()[[0, -1]]
    assert low > high
    height, width = size[1:]
    assert axes.get_xticks()[3] == pytest.approx(2.5 * width - 0.5)
    assert axes.get_yticks()[3] == pytest.approx(2.5 * height - 0.5)
    drawn(figure)
    drawn(figures.manifold(torch.rand(1, 5, *size), torch.linspace(-2, 2, 5), ("latent z0",)))


@pytest.mark.parametrize("count", [1, 2, 500])
def test_a_scatter_without_labels(count):
    figure = figures.scatter(torch.randn(count, 2), None, None, ("a", "b"))
    assert figure.axes[0].get_xlabel() == "a"
    assert len(figure.axes[0].collections) == 1


def test_a_scatter_names_every_class_at_its_median():
    points = torch.tensor([[0.0, 0], [0.1, 0], [9, 9], [9.2, 9.2]])
    figure = figures.scatter(points, torch.tensor([1, 1, 0, 0]), ("cat", "dog"), ("a", "b"))
    assert texts(figure) == ["cat", "dog"]
    cat, dog = (text.xy for text in figure.axes[0].texts)
    assert cat == pytest.approx([9, 9], abs=0.5)
    assert dog == pytest.approx([0, 0], abs=0.5)
    drawn(figure)


def test_more_classes_than_colours_differ_by_shape_and_too_many_have_no_names():
    labels = torch.arange(NAMED + 1)
    figure = figures.scatter(torch.randn(len(labels), 2), labels, None, ("a", "b"))
    assert texts(figure) == []
    first, _, tenth = (figure.axes[0].collections[i] for i in (0, 1, 10))
    assert (first.get_facecolor() == tenth.get_facecolor()).all()
    assert first.get_paths()[0].vertices.shape != tenth.get_paths()[0].vertices.shape


def test_names_do_not_overlap():
    places = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.01, 0.02], [0.5, 0.5]])
    moved = _apart(places, 0.1, 0.05)
    assert torch.equal(moved[3], places[3])
    for one, other in itertools.combinations(moved, 2):
        assert ((one - other).abs() >= torch.tensor([0.1, 0.05]) - 1e-3).any()


MACHADO = {
    "nothing": np.eye(3),
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
              [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
             [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def cielab(linear):
    """CIELAB of linear sRGB under D65."""
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]] @ linear
    ratio = np.maximum(xyz / np.array([0.9505, 1, 1.089]), 0)
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("missing", MACHADO)
def test_classes_are_told_apart_by_colour_blind_readers(missing):
    """Simulation: Machado, Oliveira & Fernandes 2009, doi:10.1109/TVCG.2009.113, severity 1."""
    colours = []
    for name in figures.PALETTE:
        rgb = np.array(matplotlib.colors.to_rgb(name))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        colours.append(cielab(np.clip(np.array(MACHADO[missing]) @ linear, 0, 1)))
    for one, other in itertools.combinations(colours, 2):
        assert np.linalg.norm(one - other) > 26


@pytest.mark.parametrize("kind", figures.FIGURE_FORMATS)
def test_the_same_figure_gives_the_same_bytes(kind, tmp_path):
    for name in ("a", "b"):
        figures.save_figure(tmp_path / f"{name}.{kind}", figures.training_curves(rows()))
    content = (tmp_path / f"a.{kind}").read_bytes()
    assert content == (tmp_path / f"b.{kind}").read_bytes()
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind]
    assert content.startswith(start)


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"\.png, \.svg or \.pdf"):
        figures.save_figure(tmp_path / "a.bmp", figures.training_curves(rows()))


def test_the_caller_keeps_his_own_style():
    with matplotlib.rc_context({"axes.edgecolor": "red", "font.size": 33}):
        figure = figures.training_curves(rows())
        assert matplotlib.rcParams["font.size"] == 33
    assert figure.axes[0].xaxis.label.get_size() < 15
