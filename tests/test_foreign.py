"""Our bounds against those of Pyro: the same weights and noise must give the same number."""

import pytest
import torch
from torch.distributions import Distribution

# Pyro turns on the checks of torch's distributions for all; zuko, which is traced, turns them off.
checked = Distribution._validate_args
import pyro  # noqa: E402
import pyro.distributions as dist  # noqa: E402
import pyro.infer  # noqa: E402

Distribution.set_default_validate_args(checked)

from convvae.config import ModelConfig  # noqa: E402
from convvae.model.objectives import elbo, importance_weighted_bound  # noqa: E402
from convvae.model.vae import VAE  # noqa: E402

X = torch.rand(6, 1, 12, 10, generator=torch.Generator().manual_seed(4))
SEED, D = 7, 3


def pixels(likelihood, output):
    """p(x|z) in Pyro's terms, from the decoder's raw output."""
    if likelihood == "bernoulli":
        return dist.Bernoulli(logits=output, validate_args=False)
    mean = output.sigmoid()
    if likelihood == "laplace":
        return dist.Laplace(mean, (0.3 / 2) ** 0.5)
    return dist.Normal(mean, 0.3**0.5)


def programs(vae, likelihood):
    """The generative model and the guide, as a user of Pyro writes them."""

    def model(x):
        with pyro.plate("images", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), D), 1.0).to_event(1))
            pyro.sample("x", pixels(likelihood, vae.decoder(z)).to_event(3), obs=x)

    def guide(x):
        with pyro.plate("images", len(x)):
            mu, logvar = vae.encoder(x)
            pyro.sample("z", dist.Normal(mu, torch.exp(logvar / 2)).to_event(1))

    return model, guide


@pytest.fixture(params=["gaussian", "laplace", "bernoulli"])
def both(request):
    config = ModelConfig(
        image_size=(12, 10),
        channels=1,
        latent_dims=D,
        max_filters=8,
        likelihood=request.param,
        variance=0.3,
    )
    vae = VAE(config).eval()
    with torch.no_grad():
        yield vae, *programs(vae, request.param)


def pyros_noise(draws):
    """The noise that Pyro draws after the seed was set, draw by draw."""
    torch.manual_seed(SEED)
    return torch.stack([torch.normal(torch.zeros(6, D), torch.ones(6, D)) for _ in range(draws)])


@pytest.mark.parametrize("draws", [1, 4])
def test_the_bound_is_pyros(both, draws):
    vae, model, guide = both
    terms = elbo(vae, X, pyros_noise(draws))
    torch.manual_seed(SEED)
    theirs = -pyro.infer.TraceMeanField_ELBO(num_particles=draws).loss(model, guide, X)
    assert terms.bound.sum().item() == pytest.approx(theirs, rel=1e-4)
    torch.manual_seed(SEED)
    drawn = -pyro.infer.Trace_ELBO(num_particles=draws).loss(model, guide, X)
    assert drawn != pytest.approx(theirs, rel=1e-6)  # its KL is drawn, ours is exact


@pytest.mark.parametrize("draws", [1, 5])
def test_the_importance_weighted_bound_is_pyros(both, draws):
    vae, model, guide = both
    # Pyro weighs the particles of the whole batch together, so each image is given on its own.
    for x in X[:3].split(1):
        torch.manual_seed(SEED)
        shape = (1, D)
        eps = torch.stack(
            [torch.normal(torch.zeros(shape), torch.ones(shape)) for _ in range(draws)]
        )
        ours = importance_weighted_bound(vae, x, eps).item()
        torch.manual_seed(SEED)
        theirs = -pyro.infer.RenyiELBO(alpha=0, num_particles=draws).loss(model, guide, x)
        assert ours == pytest.approx(theirs, rel=1e-4)
