import pytest
import torch

from convvae.config import ModelConfig
from convvae.model.vae import LOGVAR_RANGE, VAE
from convvae.networks import NETWORKS


def test_the_three_lines_of_a_vae(tiny_model):
    vae = VAE(tiny_model)
    x = torch.rand(5, 1, 12, 10)
    q = vae.encode(x)
    assert q.mu.shape == q.logvar.shape == (5, 3)
    p = vae.decode(q.rsample(torch.randn(2, 5, 3)))
    assert p.mean.shape == (2, 5, 1, 12, 10)
    assert p.log_prob(x).shape == (2, 5)


def test_decode_keeps_any_leading_shape(tiny_model):
    vae = VAE(tiny_model).eval()
    z = torch.randn(2, 3, 4, 3)
    whole = vae.decode(z).mean
    assert whole.shape == (2, 3, 4, 1, 12, 10)
    torch.testing.assert_close(whole[1, 2], vae.decode(z[1, 2]).mean)
    assert vae.decode(z[0, 0, 0]).mean.shape == (1, 12, 10)


def test_log_variances_are_clamped(tiny_model):
    vae = VAE(tiny_model)
    with torch.no_grad():
        vae.encoder.proj_logvar.bias.copy_(torch.tensor([-1e3, 0.0, 1e3]))
    logvar = vae.encode(torch.rand(4, 1, 12, 10)).logvar
    assert logvar[:, 0].tolist() == [LOGVAR_RANGE[0]] * 4
    assert logvar[:, 2].tolist() == [LOGVAR_RANGE[1]] * 4


def test_the_tutorials_size():
    vae = VAE(ModelConfig(image_size=(64, 64), channels=1))
    assert vae.num_parameters() == 149_265


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_every_network_takes_every_likelihood(network, likelihood):
    config = ModelConfig(
        image_size=(9, 20), channels=3, network=network, likelihood=likelihood, max_filters=8
    )
    p = VAE(config).decode(torch.randn(2, 8))
    assert torch.isfinite(p.log_prob(torch.rand(2, 3, 9, 20))).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_in_evaluation_an_image_alone_gives_what_it_gives_in_a_batch(network):
    config = ModelConfig(image_size=(16, 16), channels=1, network=network, max_filters=8)
    vae = VAE(config).eval()
    x = torch.rand(6, 1, 16, 16)
    torch.testing.assert_close(vae.encode(x).mu[2:3], vae.encode(x[2:3]).mu)
