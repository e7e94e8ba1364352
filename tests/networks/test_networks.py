import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convvae.config import Architecture
from convvae.networks import NETWORKS, ResidualDecoder, ResidualEncoder, UpConv2d
from convvae.networks.residual import ResidualBlock, StandardizedConv2d


def pair(name, size, channels=1, filters=64, latents=8):
    kinds = NETWORKS[name]
    depth = {"depth": 1} if kinds.has_depth else {}
    return (
        kinds.encoder(size, channels, filters, latents, latents, **depth),
        kinds.decoder(size, channels, filters, latents, **depth),
    )


def count(module):
    return sum(p.numel() for p in module.parameters())


def shapes(module, inputs):
    """Output shapes of the layers of a network, in the order in which they run."""
    found = []
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.MaxPool2d)
    hooks = [
        layer.register_forward_hook(lambda _layer, _in, out: found.append(tuple(out.shape[1:])))
        for layer in module.modules()
        if isinstance(layer, kinds)
    ]
    module(inputs)
    for hook in hooks:
        hook.remove()
    return found


def test_upsample_is_the_tutorials_network():
    encoder, decoder = pair("upsample", (64, 64))
    assert count(encoder) + count(decoder) == 149_265
    assert shapes(encoder, torch.rand(2, 1, 64, 64)) == [
        (16, 32, 32), (32, 16, 16), (64, 8, 8), (8,), (8,),
    ]  # fmt: skip
    assert shapes(decoder, torch.randn(2, 8)) == [
        (4096,), (32, 16, 16), (16, 32, 32), (1, 64, 64),
    ]  # fmt: skip


def test_pooled_is_the_notebooks_network():
    encoder, decoder = pair("pooled", (28, 28), filters=8, latents=2)
    assert shapes(encoder, torch.rand(2, 1, 28, 28)) == [
        (8, 28, 28), (8, 14, 14), (8, 14, 14), (8, 7, 7), (64,), (2,), (64,), (2,),
    ]  # fmt: skip
    assert shapes(decoder, torch.randn(2, 2)) == [(64,), (392,), (8, 14, 14), (1, 28, 28)]
    convolutions = (25 + 1) * 8 + (8 * 25 + 1) * 8
    head = (392 + 1) * 64 + (64 + 1) * 2 + 2 * 64
    assert count(encoder) == convolutions + 2 * 2 * 8 + 2 * head
    linear = (2 + 1) * 64 + 2 * 64 + (64 + 1) * 392 + 2 * 392
    assert count(decoder) == linear + (8 * 25 + 1) * 8 + 2 * 8 + (8 * 25 + 1)


def test_transposed_doubles_three_times():
    _, decoder = pair("transposed", (64, 64))
    assert shapes(decoder, torch.randn(2, 8)) == [
        (4096,), (32, 16, 16), (16, 32, 32), (1, 64, 64),
    ]  # fmt: skip
    weights = (8 + 1) * 4096 + (64 * 9 + 1) * 32 + (32 * 9 + 1) * 16 + 16 * 9 + 1
    assert count(decoder) == weights + 2 * 32 + 2 * 16


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(8, 8), (9, 15), (28, 28), (48, 80), (33, 64)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_size_and_channel_count(name, size, channels):
    encoder, decoder = pair(name, size, channels, filters=8, latents=3)
    mu, logvar = encoder(torch.rand(2, channels, *size))
    assert mu.shape == logvar.shape == (2, 3)
    assert decoder(mu).shape == (2, channels, *size)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_gets_a_gradient(name):
    encoder, decoder = pair(name, (13, 11), filters=8, latents=3)
    mu, logvar = encoder(torch.rand(4, 1, 13, 11))
    decoder(mu + logvar).square().sum().backward()
    for parameter in [*encoder.parameters(), *decoder.parameters()]:
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (8, 5)])
@pytest.mark.parametrize("channels", [(1, 1), (3, 5), (8, 1)])
def test_upconv_equals_upsampling_then_convolving(size, channels):
    layer = UpConv2d(*channels).double()
    x = torch.randn(2, channels[0], *size, dtype=torch.double, requires_grad=True)
    plain = F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), plain, rtol=1e-12, atol=1e-12)

    probe = torch.randn_like(plain)
    inputs = (x, layer.weight, layer.bias)
    ours = torch.autograd.grad((layer(x) * probe).sum(), inputs)
    theirs = torch.autograd.grad((plain * probe).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_upconv_stores_the_weights_of_the_plain_convolution():
    names = {name: tuple(value.shape) for name, value in UpConv2d(4, 6).state_dict().items()}
    assert names == {"weight": (6, 4, 3, 3), "bias": (6,)}


def test_upconv_gradient_checks_against_finite_differences():
    layer = UpConv2d(2, 3).double()
    x = torch.randn(1, 2, 3, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_standardized_filters_keep_the_variance_of_rectified_noise():
    layer = StandardizedConv2d(64, 512)
    torch.nn.init.zeros_(layer.bias)
    noise = torch.nn.functional.silu(torch.randn(8, 64, 16, 16))
    inner = layer(noise)[:, :, 1:-1, 1:-1]
    assert inner.var().item() == pytest.approx(1.0, rel=0.05)
    shifted = layer(noise + 5.0)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(shifted, inner, rtol=1e-3, atol=1e-3)


def test_a_residual_block_starts_as_the_identity():
    block, x = ResidualBlock(8), torch.randn(2, 8, 5, 5)
    assert torch.equal(block(x), x)
    block(x).sum().backward()
    assert block.scale.grad is not None
    assert block.scale.grad.abs() > 0


def test_residual_scores_an_image_alone_as_in_a_batch():
    encoder, _ = pair("residual", (16, 16), filters=8)
    x = torch.rand(5, 1, 16, 16)
    torch.testing.assert_close(encoder(x)[0][2:3], encoder(x[2:3])[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_settings_say_which_networks_use_batch_statistics(name):
    encoder, decoder = pair(name, (16, 16), filters=8)
    x, z = torch.rand(6, 1, 16, 16), torch.randn(6, 8)
    alone = torch.cat([encoder(x[:3])[0], decoder(z[:3]).flatten(1)], 1)
    in_company = torch.cat([encoder(x)[0][:3], decoder(z)[:3].flatten(1)], 1)
    depends = not torch.allclose(alone, in_company, rtol=1e-4, atol=1e-5)
    assert Architecture(network=name).uses_batch_statistics is depends


def test_depth_is_the_number_of_residual_blocks():
    encoder = ResidualEncoder((16, 16), 1, 8, 2, 2, depth=3)
    decoder = ResidualDecoder((16, 16), 1, 8, 2, depth=3)
    for half in (encoder, decoder):
        assert sum(isinstance(part, ResidualBlock) for part in half.modules()) == 9
