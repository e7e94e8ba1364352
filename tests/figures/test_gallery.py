import numpy as np
import pytest
import torch
from PIL import Image

from convvae.config import ModelConfig
from convvae.errors import UsageError
from convvae.evaluation import latents
from convvae.evaluation.bounds import image_terms
from convvae.evaluation.encode import decode
from convvae.figures.gallery import (
    ON_REQUEST,
    PICTURES,
    Gallery,
    Picture,
    pictures,
    save_animations,
)
from convvae.model.vae import VAE


def gallery(count=6, labels=True, rows=(), pair=None, **model):
    settings = {"image_size": (8, 12), "channels": 3, "latent_dims": 4, "max_filters": 8, **model}
    config = ModelConfig(**settings)
    images = torch.randint(256, (count, config.channels, *config.image_size), dtype=torch.uint8)
    found = torch.arange(count) // 2 if labels else None
    return Gallery(VAE(config).eval(), images, found, rows=rows, grid=3, pair=pair)


def drawn(material, names=()):
    return dict(pictures(material, names))


ROWS = [{"event": "epoch", "images": 9, "train_loss": 1, "val_loss": 1, "train_kl": 1, "val_kl": 1}]


def test_every_picture_has_a_title_and_words_and_umap_waits_to_be_asked():
    found = drawn(gallery(rows=ROWS))
    assert found.keys() == PICTURES.keys() - set(ON_REQUEST)
    assert "of a ladder" in found.pop("levels")
    assert "of a conditional model" in found.pop("labels")
    for name, picture in found.items():
        assert isinstance(picture, Picture), name
        assert picture.title
        assert picture.caption.endswith((".", ".)")), name


@pytest.mark.parametrize(
    "model",
    [
        {"latent_dims": 1},
        {"latent_dims": 256, "channels": 1, "image_size": (16, 16)},
        {"posterior": "full"},
        {"prior": "mixture", "prior_components": 2},
        {"channels": 4},
        {"network": "ladder", "latent_dims": 8, "groups": (1, 1), "group_channels": 2},
    ],
)
def test_any_model_has_its_pictures(model):
    names = ["scatter", "manifold", "traversals", "information"]
    found = drawn(gallery(**model), [*names, *(["levels"] if "groups" in model else [])])
    assert all(isinstance(picture, Picture) for picture in found.values())


def test_one_image_without_a_label_leaves_out_what_makes_no_sense():
    found = drawn(gallery(count=1, labels=False))
    left_out = {name: why for name, why in found.items() if isinstance(why, str)}
    without = {"curves", "tsne", "levels", "interpolations", "class-means", "labels"}
    assert left_out.keys() == without
    assert left_out["interpolations"] == "an interpolation needs two images"
    assert "no labels" in left_out["class-means"] or "have none" in left_out["class-means"]
    assert save_animations(gallery(count=1), None) == []


def test_the_best_and_the_worst_are_so_by_their_bound():
    material = gallery(count=30, labels=False)
    bound = image_terms(material.vae, material.images, seed=0).bound
    figure = drawn(material, ["extremes"])["extremes"].figure
    titles = [text.get_text() for axes in figure.axes for text in axes.texts]
    numbers = [int(title.replace("−", "-")) for title in titles if title[-1].isdigit()]
    ordered = [round(value) for value in bound.sort(descending=True).values.tolist()]
    assert numbers == ordered[:10] + ordered[:-11:-1]


def test_an_interpolation_joins_the_first_of_two_classes_or_the_pair_asked_for():
    assert gallery().ends == (0, 2)
    assert gallery(labels=False).ends == (0, 1)
    assert gallery(pair=(5, 1)).ends == (5, 1)
    with pytest.raises(UsageError, match="6 images, numbered from 0"):
        gallery(pair=(0, 6))


def test_traversals_of_many_latents_are_cut_and_say_so():
    material = gallery(latent_dims=9)
    material.walked = 5
    picture = drawn(material, ["traversals"])["traversals"]
    assert "4 less informative latents are left out" in picture.caption


def test_the_manifold_of_many_latents_is_over_the_two_most_informative():
    material = gallery(latent_dims=5)
    picture = drawn(material, ["manifold"])["manifold"]
    best = sorted(latents.codes(material.vae, material.images).order[:2].tolist())
    (axes,) = picture.figure.axes
    assert [axes.get_xlabel(), axes.get_ylabel()] == [f"latent z{latent}" for latent in best]
    assert "the other 3 at the images' mean" in picture.caption


def test_an_unknown_figure_is_named_with_those_that_there_are():
    with pytest.raises(UsageError, match=r"no figure 'manifolds' \(did you mean manifold\?\)"):
        drawn(gallery(), ["manifolds"])


def test_animations_begin_and_end_at_the_two_images(tmp_path):
    material = gallery(channels=1)
    paths = save_animations(material, tmp_path)
    assert [path.name for path in paths] == [
        "interpolation-straight.gif",
        "interpolation-spherical.gif",
    ]
    with Image.open(paths[0]) as animation:
        first = np.asarray(animation.convert("L"), dtype=float) / 255
    expected = decode(material.vae, material.codes.mean[0])[0]
    scale = first.shape[0] // 8
    assert first[::scale, ::scale] == pytest.approx(expected.numpy(), abs=0.02)
