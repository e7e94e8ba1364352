"""The objective of images of which some have no label: exact on models that are small enough."""

import math

import pytest
import torch

from convvae.config import Condition, ModelConfig, TrainConfig
from convvae.data import ImageSet
from convvae.data.images import hide_labels
from convvae.errors import ConfigError
from convvae.model.conditions import (
    completed,
    condition_of,
    conditions,
    given_labels,
    given_labels_of,
)
from convvae.model.objectives import elbo
from convvae.model.semi_supervised import joint, semi_supervised_loss
from convvae.model.vae import VAE
from convvae.parts import NETWORK_NAMES
from convvae.training.holdout import divide, labelled_rows, with_labels_repeated

LABELS = Condition(labels=("cat", "dog", "newt"), counts=(5, 3, 2))
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
KNOWN = torch.tensor([[0.0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
"""The second and the fourth of four images have no label."""


def model(network="upsample", **settings):
    size = {} if network == "ladder" else {"latent_dims": 2}
    config = ModelConfig(
        image_size=(8, 8),
        channels=1,
        network=network,
        max_filters=4,
        group_channels=2,
        likelihood="bernoulli",
        condition=LABELS,
        classifier=True,
        **(size | settings),
    )
    vae = VAE(config).eval()
    with torch.no_grad():
        for weights in vae.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    return vae


def batch(vae, draws=3):
    return torch.rand(4, 1, 8, 8).round(), torch.randn(draws, 4, vae.config.latent_dims)


def by_hand(vae, x, eps, place, label=None):
    """The bound of one image, label by label."""
    rows = slice(place, place + 1)
    each = torch.stack(
        [elbo(vae.given(y[None]), x[rows], eps[:, rows]).bound[0] for y in torch.eye(3).to(x)]
    ) + PRIOR.log().to(x)
    if label is not None:
        return each[label]
    q = vae.classify(x[rows])[0].exp()
    return sum(q[y] * (each[y] - q[y].log()) for y in range(3))


@pytest.mark.parametrize("network", NETWORK_NAMES.built_in)
def test_both_bounds_are_those_of_going_through_the_labels_one_by_one(network):
    vae = model(network)
    x, eps = batch(vae)
    found = joint(vae, x, eps, KNOWN)
    expected = [
        by_hand(vae, x, eps, place, label) for place, label in enumerate((1, None, 2, None))
    ]
    torch.testing.assert_close(found.terms.bound, torch.stack(expected), rtol=1e-5, atol=1e-4)
    log_q = vae.classify(x)
    torch.testing.assert_close(log_q.exp().sum(1), torch.ones(4))
    wanted = torch.stack([-log_q[0, 1], torch.tensor(0.0), -log_q[2, 2], torch.tensor(0.0)])
    torch.testing.assert_close(found.cross_entropy, wanted)
    loss = semi_supervised_loss(found, 1.0, 7.0)
    torch.testing.assert_close(loss, -(found.terms.bound - 7 * wanted).mean())


def test_pixels_that_are_missing_count_in_neither_bound():
    vae = model()
    x, eps = batch(vae)
    there = torch.rand(4, 1, 8, 8) > 0.5
    x = x * there
    found = joint(vae, x, eps, KNOWN, there).terms.bound
    for place, label in enumerate((1, None, 2, None)):
        rows = vae.observing(there[place : place + 1])
        rows.classify = vae.classify
        torch.testing.assert_close(found[place], by_hand(rows, x, eps, place, label))
    assert (found > joint(vae, x, eps, KNOWN).terms.bound).all()


@pytest.mark.parametrize("part", ["classifier", "encoder", "decoder", "planes", "prior"])
def test_the_gradient_is_that_of_finite_differences(part):
    vae = model(prior="conditional").double()
    x, eps = (value.double() for value in batch(vae))
    known = KNOWN.double()

    def loss():
        return semi_supervised_loss(joint(vae, x, eps, known), 1.0, 2.0)

    weights = list(getattr(vae, part).parameters())
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    ways = [torch.randn_like(weight) for weight in weights]
    along = sum((g * way).sum() for g, way in zip(gradients, ways, strict=True) if g is not None)
    step, ends = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            for weight, way in zip(weights, ways, strict=True):
                weight.add_(sign * step * way)
            ends.append(loss())
            for weight, way in zip(weights, ways, strict=True):
                weight.sub_(sign * step * way)
    difference = (ends[0] - ends[1]) / (2 * step)
    assert float(along) == pytest.approx(float(difference), rel=1e-4, abs=1e-6)
    assert float(along) != 0


def log_px(vae, x):
    """log p(x) = log sum_y p(y) int p(x|z,y) N(z; 0, 1) dz of one latent, by a fine grid."""
    z = torch.linspace(-8, 8, 2001, dtype=torch.float64)[:, None]
    density = -(z[:, 0] ** 2) / 2 - math.log(2 * math.pi) / 2
    given = []
    for y in torch.eye(3).double():
        each = vae.given(y[None]).decode(z[:, None]).log_prob(x)
        given.append((each + density[:, None]).logsumexp(0) + torch.log(z[1, 0] - z[0, 0]))
    return torch.stack(given, 1) + PRIOR.log()


def test_the_bound_without_a_label_is_below_log_px():
    vae = model(latent_dims=1).double()
    x, eps = torch.rand(4, 1, 8, 8).round().double(), torch.randn(4000, 4, 1).double()
    with torch.no_grad():
        found = joint(vae, x, eps, torch.zeros(4, 3).double()).terms.bound
        exact = log_px(vae, x).logsumexp(1)
    assert (found < exact).all()
    assert (found > exact - 50).all()


def test_the_bound_is_log_px_where_both_posteriors_are_exact():
    vae = model(latent_dims=1).double()
    with torch.no_grad():
        vae.decoder.lin1.weight[:, 0] = 0  # z says nothing: p(z|x,y) is the prior
        for head in (vae.encoder.proj_mu, vae.encoder.proj_logvar):
            head.weight.zero_()
            head.bias.zero_()
        x = torch.rand(4, 1, 8, 8).round().double()
        exact = log_px(vae, x)
        vae.classify = lambda _: exact.log_softmax(1)
        found = joint(vae, x, torch.randn(2, 4, 1).double(), KNOWN.double()).terms.bound
    torch.testing.assert_close(found[[1, 3]], exact.logsumexp(1)[[1, 3]])
    torch.testing.assert_close(found[[0, 2]], exact[[0, 2], [1, 2]])


def pets(count=9, labels=(0, 1, 2)):
    pixels = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8)
    numbers = torch.tensor(labels)[torch.arange(count) % len(labels)]
    return ImageSet(pixels, numbers, "pets", "test", classes=("cat", "dog", "newt", "unlabelled"))


def test_an_image_without_a_label_is_a_row_of_zeros_and_decoded_as_its_likeliest():
    vae, some = model(), pets(8, labels=(0, 3, 2, 3))
    y = conditions(vae.config, some)
    assert y.sum(1).tolist() == [1, 0] * 4
    given = given_labels_of(vae, some)
    likeliest = vae.classify(some.images / 255).argmax(1)
    assert torch.equal(given.y.argmax(1)[1::2], likeliest[1::2])
    assert given.y.argmax(1)[::2].tolist() == [0, 2, 0, 2]
    assert torch.equal(completed(vae, y, some.images.split(3)).y, given.y)


def test_labels_that_lack_do_not_count_and_are_refused_where_all_are_needed():
    some = pets(8, labels=(0, 3, 2, 3))
    condition = condition_of(some, some_lack=True)
    assert (condition.labels, condition.counts) == (("cat", "newt"), (2, 2))
    with pytest.raises(ConfigError, match=r"4 of 8 images of pets have no label .*semi-supervised"):
        condition_of(some)
    with pytest.raises(ConfigError, match="8 of 8 images of pets have no label, and the labels"):
        condition_of(pets(8, labels=(3,)), some_lack=True)
    vae = VAE(model().config.model_copy(update={"classifier": False}))
    with pytest.raises(ConfigError, match="does not know the label 'unlabelled'"):
        given_labels_of(vae, some)


def run_config(**settings):
    words = {"objective": "semi-supervised", "condition": "label", **settings}
    return TrainConfig.checked({"data": "digits", **words}, "train")


def test_so_many_labels_are_kept_as_many_of_each_and_none_of_held_out_images():
    some = pets(90)
    images = divide(some, pets(), run_config(labelled=7, validation=0.2))
    kept = images.source.labels[images.source.labels < 3]
    assert kept.bincount().tolist() == [3, 2, 2]
    places = (images.source.labels < 3).nonzero().squeeze(1)
    assert torch.equal(images.source.labels[places], some.labels[places])
    assert torch.isin(places, images.rows).all()
    assert (images.held_out.labels == 3).all()
    assert images.test.labels.tolist() == pets().labels.tolist()
    again = labelled_rows(some, images.rows, 7, 0)
    assert torch.equal(again.sort().values, places)
    assert not torch.equal(labelled_rows(some, images.rows, 7, 1).sort().values, places)
    rows = with_labels_repeated(images)
    has = images.source.labels[rows] < 3
    assert 0.05 < float(has.double().mean()) < 0.15
    assert torch.equal(rows.unique(), images.rows)


def test_more_labels_than_there_are_images_are_refused():
    with pytest.raises(ConfigError, match=r"31 images of each label, and pets has 30 of cat"):
        labelled_rows(pets(90), torch.arange(90), 93, 0)
    bare = hide_labels(pets(9), torch.tensor([0]))
    assert bare.classes == ("cat", "dog", "newt", "unlabelled")
    assert bare.labels.tolist() == [0] + [3] * 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"condition": None}, "use it with `condition='label'`"),
        ({"condition": ["size"]}, "use it with `condition='label'`"),
        ({"likelihood": "gaussian-optimal"}, "gaussian-learned"),
        ({"objective": "elbo", "labelled": 10}, "`labelled` hides labels, which needs"),
        ({"free_bits": 1.0}, "goes with `objective='elbo'` only"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        run_config(**settings)


def test_a_model_without_a_classifier_says_so():
    vae = given_labels(VAE(model().config.model_copy(update={"classifier": False})), ["cat"])
    with pytest.raises(ConfigError, match="has no q"):
        vae.classify(torch.rand(1, 1, 8, 8))
    with pytest.raises(ConfigError, match="labels of one column"):
        ModelConfig.checked({"image_size": 8, "channels": 1, "classifier": True}, "file")
