"""What models, posteriors, likelihoods and figures show of themselves in a notebook."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from convvae.config import ModelConfig
from convvae.distributions import DiagonalGaussian, FullGaussian
from convvae.model.vae import VAE


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1,), (70,), (2, 5)])
def test_a_likelihood_shows_its_means(channels, shape):
    vae = VAE(
        ModelConfig(image_size=(8, 12), channels=channels, latent_dims=2, max_filters=8)
    ).eval()
    with torch.no_grad():
        p = vae.decode(torch.zeros(*shape, 2))
        expected = p.mean.reshape(-1, channels, 8, 12)[0, 0, 0, 0]
    with Image.open(io.BytesIO(p._repr_png_())) as image:
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
    assert pixels.shape[2] == channels
    assert pixels[3, 3, 0] == pytest.approx(255 * float(expected), abs=0.51)


def test_a_posterior_shows_its_means_and_deviations():
    mu, logvar = torch.tensor([[1.5, -2.0]]), torch.tensor([[0.0, 2 * np.log(3.0)]]).float()
    assert "<td>1.50 ± 1.00</td><td>-2.00 ± 3.00</td>" in DiagonalGaussian(mu, logvar)._repr_html_()
    full = FullGaussian(mu, logvar, torch.tensor([[4.0]]))
    assert "<td>-2.00 ± 5.00</td>" in full._repr_html_()  # (I + N) diag(1, 3): sqrt(16 + 9)
    many = DiagonalGaussian(torch.zeros(500, 300), torch.zeros(500, 300))._repr_html_()
    assert "500 images, 300 latents" in many
    assert many.count("<td>") == 64


def test_a_model_shows_its_settings(tiny_model):
    shown = VAE(tiny_model)._repr_html_()
    assert "trainable parameters, on cpu" in shown
    assert "<tr><th>image_size<td>12x10" in shown


def test_showing_a_model_needs_no_matplotlib():
    code = (
        "import sys, torch\n"
        "from convvae import load_model\n"
        "vae, _ = load_model('mnist-2d')\n"
        "p, q = vae.decode(torch.zeros(1, 2)), vae.encode(torch.zeros(1, 1, 28, 28))\n"
        "vae._repr_html_(), q._repr_html_(), p._repr_png_()\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
