"""Models that are told the labels of their images, for every network."""

import pytest
import torch

from convvae.config import Condition, ModelConfig, TrainConfig
from convvae.data import ImageSet
from convvae.errors import ConfigError
from convvae.evaluation.bounds import image_terms, importance_bounds
from convvae.evaluation.encode import decode, encode, generate
from convvae.evaluation.label_evidence import label_bounds, label_evidence
from convvae.evaluation.reconstruction import reconstruct
from convvae.model.checkpoint import ModelMetadata, load_model, save_model
from convvae.model.conditions import (
    condition_of,
    conditions,
    given_labels,
    given_labels_of,
    log_prior,
)
from convvae.model.objectives import elbo
from convvae.model.vae import VAE
from convvae.parts import NETWORK_NAMES

LABELS = Condition(labels=("cat", "dog", "newt"), counts=(6, 3, 1))


def model(network="upsample", **settings):
    """A small model whose weights are none of the start, so that labels matter everywhere."""
    sizes = {"max_filters": 8, "group_channels": 2} | (
        {} if network == "ladder" else {"latent_dims": 3}
    )
    config = ModelConfig(
        image_size=(12, 10),
        channels=1,
        network=network,
        condition=LABELS,
        **(sizes | settings),
    )
    vae = VAE(config).eval()
    with torch.no_grad():
        for weights in vae.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    return vae


def images(count=7):
    labels = torch.arange(count) % 3
    pixels = torch.randint(0, 256, (count, 1, 12, 10), dtype=torch.uint8)
    return ImageSet(pixels, labels, "pets", "test", classes=("cat", "dog", "newt"))


@pytest.mark.parametrize("network", NETWORK_NAMES.built_in)
def test_what_is_given_all_at_once_is_what_is_given_one_by_one(network):
    vae, pets = model(network), images()
    given = given_labels_of(vae, pets)
    terms = image_terms(given, pets.images, seed=0)
    weighted = importance_bounds(given, pets.images, samples=3, seed=0)
    decoded = reconstruct(given, pets.images)
    numbers = encode(given, pets.images, seed=0)
    for place, label in enumerate(pets.labels.tolist()):
        one, alone = pets.images[place : place + 1], given_labels(vae, [LABELS.labels[label]])
        torch.testing.assert_close(
            image_terms(alone, one, seed=0).bound[0], terms.bound[place], rtol=1e-5, atol=1e-3
        )
        found = importance_bounds(alone, one, samples=3, seed=0)[0]
        torch.testing.assert_close(found, weighted[place], rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(reconstruct(alone, one)[0], decoded[place])
        torch.testing.assert_close(encode(alone, one, seed=0).mu[0], numbers.mu[place])


@pytest.mark.parametrize("network", NETWORK_NAMES.built_in)
def test_the_label_changes_the_posterior_the_image_and_the_ladders_prior(network):
    vae, x = model(network), torch.rand(2, 1, 12, 10)
    cat, dog = (given_labels(vae, [name]) for name in ("cat", "dog"))
    assert not torch.allclose(cat.encode(x).location, dog.encode(x).location)
    z = torch.randn(2, vae.config.latent_dims)
    assert not torch.allclose(cat.decode(z).mean, dog.decode(z).mean)
    same = torch.allclose(cat.prior.log_prob(z), dog.prior.log_prob(z))
    assert same == (network != "ladder")


@pytest.mark.parametrize("network", ["upsample", "ladder"])
def test_several_draws_per_image_keep_each_images_label(network):
    vae, x = model(network), torch.rand(3, 1, 12, 10)
    y = torch.eye(3)
    eps = torch.randn(2, 3, vae.config.latent_dims)
    together = elbo(vae.given(y), x, eps)
    for place in range(3):
        rows = slice(place, place + 1)
        alone = elbo(vae.given(y[rows]), x[rows], eps[:, rows])
        torch.testing.assert_close(alone.bound[0], together.bound[place])


def test_the_kl_from_a_labels_prior_is_that_of_torch():
    vae = model(prior="conditional").given(torch.eye(3))
    q = vae.encode(torch.rand(3, 1, 12, 10))
    terms = elbo(vae, torch.rand(3, 1, 12, 10))
    assert terms.kl.shape == (3,)
    mu, logvar = vae.prior.parameters_of()
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mu, (q.logvar / 2).exp()),
        torch.distributions.Normal(mu, (logvar / 2).exp()),
    ).sum(-1)
    draws = vae.draw(q, torch.randn(1, 3, 3))
    torch.testing.assert_close(draws.kl, theirs)
    density = torch.distributions.Normal(mu, (logvar / 2).exp()).log_prob(draws.z).sum(-1)
    torch.testing.assert_close(vae.prior.log_prob(draws.z), density)


def test_draws_of_a_labels_prior_have_its_mean_and_variance():
    vae = given_labels(model(prior="conditional"), ["dog"])
    with torch.no_grad():
        vae.prior.mu.weight[:, 1] = torch.tensor([3.0, 0.0, -2.0])
        vae.prior.logvar.weight[:, 1] = torch.tensor([0.0, -2.0, 1.0])
    z = vae.prior.sample(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), torch.tensor([3.0, 0.0, -2.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(z.var(0).log(), torch.tensor([0.0, -2.0, 1.0]), atol=0.05, rtol=0)


@pytest.mark.parametrize("network", ["upsample", "ladder"])
def test_labels_that_nobody_names_are_drawn_as_often_as_in_training(network):
    vae = model(network)
    assert torch.equal(generate(vae, 5, seed=1), generate(vae, 5, seed=1))
    one = given_labels(vae, ["newt"])
    assert generate(one, 300, seed=1).shape == (300, 1, 12, 10)  # more than are drawn at a time
    assert log_prior(LABELS).exp().tolist() == pytest.approx([0.6, 0.3, 0.1])


def test_a_model_that_is_given_no_label_says_so():
    vae = model()
    with pytest.raises(ConfigError, match="trained with the labels"):
        vae.encode(torch.rand(1, 1, 12, 10))
    with pytest.raises(ConfigError, match="trained with the labels"):
        decode(vae, torch.zeros(1, 3))


def test_a_label_that_is_not_known_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ConfigError, match=r"label 'cow' \(did you mean dog|label 'cow'"):
        given_labels(model(), ["cow"])
    with pytest.raises(ConfigError, match="knows cat, dog, newt"):
        given_labels(model(), ["horse"])
    strange = ImageSet(images().images, torch.zeros(7, dtype=torch.int64), "zoo", "test")
    with pytest.raises(ConfigError, match="does not know the label '0'"):
        given_labels_of(model(), strange)


def test_images_without_labels_are_refused():
    bare = ImageSet(images().images, None, "bare", "test")
    for ask in (condition_of, lambda found: given_labels_of(model(), found)):
        with pytest.raises(ConfigError, match="those of bare have none, or only some"):
            ask(bare)


def test_labels_are_known_by_name_whatever_their_numbers():
    turned = ImageSet(
        images().images,
        2 - images().labels,
        "pets",
        "test",
        classes=("newt", "dog", "cat"),
    )
    ours, theirs = (conditions(model().config, found) for found in (images(), turned))
    assert torch.equal(ours, theirs)
    assert condition_of(images()) == Condition(labels=LABELS.labels, counts=(3, 2, 2))


def test_weights_are_shared_and_the_mode_is_put_back():
    vae = model().train()
    given = given_labels_of(vae, images())
    image_terms(given, images().images, seed=0)
    assert vae.training
    assert vae.encoder.training
    assert {id(p) for p in given.parameters()} == {id(p) for p in vae.parameters()}
    given.prior = torch.nn.Identity()
    assert not isinstance(vae.prior, torch.nn.Identity)


@pytest.mark.parametrize("network", ["upsample", "ladder"])
def test_the_gradient_reaches_what_the_label_goes_through(network):
    vae = model(network, **({} if network == "ladder" else {"prior": "conditional"}))
    y = torch.eye(3)
    (-elbo(vae.given(y), torch.rand(3, 1, 12, 10)).bound.mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vae.planes.parameters())
    last = vae.decoder.known if network == "ladder" else vae.prior.mu
    assert last.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("network", ["pooled", "ladder"])
def test_a_model_file_knows_its_labels(network, tmp_path):
    vae = model(network)
    facts = ModelMetadata(model=vae.config, data="pets", epochs=1, images=7, versions={})
    save_model(tmp_path / "pets.safetensors", vae, facts)
    again, metadata = load_model(tmp_path / "pets.safetensors")
    assert metadata.model.condition == LABELS
    x = images().images
    ours, theirs = (image_terms(given_labels_of(v, images()), x, seed=0) for v in (vae, again))
    assert torch.equal(ours.bound, theirs.bound)


def test_the_sum_over_labels_and_the_classifier_are_those_of_bayes():
    vae, pets = model(), images(9)
    given = label_bounds(vae, pets.images, samples=2, seed=0)
    assert given.shape == (9, 3)
    joint = given.exp() * torch.tensor([0.6, 0.3, 0.1])
    found = label_evidence(vae, pets, samples=2, seed=0)
    assert found.without_label.mean == pytest.approx(float(joint.sum(1).log().mean()))
    right = (joint.argmax(1) == pets.labels).double().mean()
    assert found.accuracy.mean == pytest.approx(float(right))
    own = given[torch.arange(9), pets.labels].mean()
    assert found.gain.mean == pytest.approx(float(own) - found.without_label.mean)


def test_settings_that_need_labels_say_so():
    with pytest.raises(ConfigError, match="one for each label"):
        TrainConfig.checked({"data": "digits", "prior": "conditional"}, "train")
    with pytest.raises(ConfigError, match="have no label"):
        TrainConfig.checked(
            {"data": "digits", "prior": "vamp", "condition": "label", "network": "residual"},
            "train",
        )


def test_a_file_whose_counts_do_not_fit_its_labels_is_refused():
    with pytest.raises(ConfigError, match="a count"):
        Condition.checked({"labels": ("a", "b"), "counts": (1,)}, "file")
    with pytest.raises(ConfigError, match="a name of its own"):
        Condition.checked({"labels": ("a", "a"), "counts": (1, 1)}, "file")
