"""The gradient of every objective on every network that may train it, against the plain equations.

In float64 and in training mode. The equations are written out again from the raw outputs of the
networks, image by image and draw by draw where that is what they say.
"""

import math

import pytest
import torch
from pydantic import ValidationError
from torch.distributions import Normal, kl_divergence

from convvae.config import ModelConfig, TrainConfig
from convvae.distributions import HEADS
from convvae.model.objectives import draw, training_loss
from convvae.model.vae import VAE
from convvae.networks import NETWORKS
from convvae.parts import WITHOUT_BATCH_STATISTICS

B, K, D, N = 5, 3, 2, 40
BETA, CAPACITY = 0.7, 0.4
SIZE = (8, 9)
OBJECTIVES = {
    "elbo": {},
    "free bits": {"free_bits": 0.3},
    "capacity": {"capacity": CAPACITY},
    "mmd": {"mmd": 5.0},
    "beta-tc": {"objective": "beta-tc"},
    "iwae": {"objective": "iwae"},
    "dreg": {"objective": "dreg"},
}
PLAIN = [name for name in NETWORKS if name in WITHOUT_BATCH_STATISTICS]
"""Networks of an encoder and a decoder, without batch statistics."""
ALLOWED = {name: PLAIN if name == "dreg" else list(NETWORKS) for name in OBJECTIVES}
CASES = [(name, network) for name, networks in ALLOWED.items() for network in networks]


def model(network, noise=0.1, **more):
    values = {"latent_dims": D, "max_filters": 4, "depth": 1, "likelihood": "bernoulli"} | more
    chosen = {name: value for name, value in values.items() if value is not None}
    vae = VAE(ModelConfig(image_size=SIZE, channels=1, network=network, **chosen))
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return vae.double().train()


def settings(name, **more):
    return TrainConfig(data="digits", **({"mc_samples": K} | OBJECTIVES[name] | more))


def inputs(images=B, draws=K):
    x = torch.rand(images, 1, *SIZE, dtype=torch.double)
    return x, torch.randn(draws, images, D, dtype=torch.double)


def pieces(vae, x, eps):
    """mu, logvar [B, D], z [K, B, D] and log p(x|z) [K, B], from the raw outputs."""
    mu, logvar = vae.encoder(x)
    z = mu + (logvar / 2).exp() * eps
    l = vae.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    log_px = (x * l - torch.log1p(l.exp())).sum((2, 3, 4))
    return mu, logvar, z, log_px


def normal(z, mu, logvar):
    """log N(z; mu, exp(logvar)) of every latent."""
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu) ** 2 / logvar.exp())


def plainly(name, vae, x, eps):
    """The loss, as its equation says it."""
    mu, logvar, z, log_px = pieces(vae, x, eps)
    each = 0.5 * (mu**2 + logvar.exp() - 1 - logvar)
    kl, fit = each.sum(1).mean(), log_px.mean()
    match name:
        case "elbo":
            return BETA * kl - fit
        case "free bits":
            means = each.mean(0)
            return BETA * sum(mean if mean > 0.3 else 0.3 for mean in means) - fit
        case "capacity":
            return BETA * torch.maximum(kl - CAPACITY, CAPACITY - kl) - fit
        case "mmd":
            total = 0.0
            for k in range(len(z)):
                for i in range(B):
                    for j in set(range(B)) - {i}:
                        pairs = [(z, z, 1), (eps, eps, 1), (z, eps, -2)]
                        for a, b, sign in pairs:
                            square = (a[k, i] - b[k, j]).square().sum()
                            total = total + sign * torch.exp(-square / (2 * D))
            return BETA * kl - fit + 5 * total / (len(z) * B * (B - 1))
        case "beta-tc":
            total = 0.0
            for k in range(len(z)):
                for i in range(B):
                    share = [1 / N if j == i else (N - 1) / (N * (B - 1)) for j in range(B)]
                    parts = torch.stack([normal(z[k, i], mu[j], logvar[j]) for j in range(B)])
                    share = torch.tensor(share, dtype=torch.double).unsqueeze(1)
                    joint = (share[:, 0] * parts.sum(1).exp()).sum().log()
                    total = total + joint - (share * parts.exp()).sum(0).log().sum()
            return kl - fit + (BETA - 1) * total / (len(z) * B)
        case "iwae":
            prior = normal(z, *torch.zeros(2).double()).sum(2)
            weights = (log_px + prior - normal(z, mu, logvar).sum(2)).exp()
            return -weights.mean(0).log().mean()


def ladder_pieces(vae, x, eps):
    """log p(x|z), log p(z) - log q(z|x) [K, B] and the groups' KL [L, K, B], by torch's Normal."""
    seen, log_px, log_ratio, kl = vae.encoder(x), [], [], []
    for noise in eps:
        ratios, kls, parts = [], [], vae.decoder.split(noise)

        def choose(place, prior, state, parts=parts, ratios=ratios, kls=kls):
            q = Normal(*vae.decoder.rung(place).infer(state, seen[place], prior))
            z, p = q.mean + q.stddev * parts[place], Normal(*prior)
            ratios.append((p.log_prob(z) - q.log_prob(z)).sum((1, 2, 3)))
            kls.append(kl_divergence(q, p).sum((1, 2, 3)))
            return z

        l = vae.decoder.walk(len(x), choose)
        log_px.append((x * l - torch.log1p(l.exp())).sum((1, 2, 3)))
        log_ratio.append(sum(ratios))
        kl.append(torch.stack(kls))
    return torch.stack(log_px), torch.stack(log_ratio), torch.stack(kl, 1)


def gradients(loss, vae):
    found = torch.autograd.grad(loss, list(vae.parameters()), allow_unused=True)
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(vae.named_parameters(), found, strict=True)
    }


@pytest.mark.parametrize(("name", "network"), [case for case in CASES if case[0] != "dreg"])
def test_an_objectives_gradient_is_that_of_its_equation(name, network):
    vae, (x, eps) = model(network), inputs()
    config = settings(name, network=network)
    loss = training_loss(config, vae, draw(vae, x, eps), BETA, CAPACITY, N)
    plain = plainly(name, vae, x, eps)
    torch.testing.assert_close(loss, plain, rtol=1e-10, atol=0)
    found, exact = gradients(loss, vae), gradients(plain, vae)
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-9)
    assert all(gradient.abs().max() > 0 for name, gradient in found.items() if "proj" in name)


@pytest.mark.parametrize("name", ["elbo", "free bits", "capacity", "iwae"])
def test_a_ladders_gradients_are_those_of_its_equations(name):
    vae, (x, _) = model("ladder", latent_dims=None, groups=(1, 1)), inputs()
    eps = torch.randn(K, B, vae.config.latent_dims, dtype=torch.double)
    config = settings(name, network="ladder")
    log_px, log_ratio, kl = ladder_pieces(vae, x, eps)
    groups = kl.mean((1, 2))
    free = groups.mean().item()
    assert len(groups) > 1
    config = config.model_copy(update={"free_bits": free} if name == "free bits" else {})
    plain = {
        "elbo": BETA * groups.sum() - log_px.mean(),
        "free bits": BETA * sum(g if g > free else free for g in groups) - log_px.mean(),
        "capacity": BETA * (groups.sum() - CAPACITY).abs() - log_px.mean(),
        "iwae": -(log_px + log_ratio).exp().mean(0).log().mean(),
    }[name]
    loss = training_loss(config, vae, draw(vae, x, eps), BETA, CAPACITY, N)
    torch.testing.assert_close(loss, plain, rtol=1e-10, atol=0)
    found, exact = gradients(loss, vae), gradients(plain, vae)
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("network", ALLOWED["dreg"])
def test_the_doubly_reparameterised_gradient_is_that_of_its_equation(network):
    """sum_k w_k^2 d log w_k / dz_k dz_k / dphi, with the draws decoded one at a time."""
    vae, (x, eps) = model(network), inputs()
    config = settings("dreg", network=network)
    loss = training_loss(config, vae, draw(vae, x, eps), 1.0, 0.0, N)
    found = gradients(loss, vae)
    assert loss.item() == pytest.approx(plainly("iwae", vae, x, eps).item(), rel=1e-10)

    mu, logvar, z, log_px = pieces(vae, x, eps)
    prior = normal(z, *torch.zeros(2).double()).sum(2)
    log_w = (log_px + prior - normal(z, mu, logvar).sum(2)).detach()
    shares = log_w.exp() / log_w.exp().sum(0)
    surrogate = torch.zeros((), dtype=torch.double)
    for k in range(K):
        for i in range(B):
            here = z[k, i].detach().requires_grad_()
            l = vae.decoder(here.unsqueeze(0))[0]
            score = (x[i] * l - torch.log1p(l.exp())).sum() - here.square().sum() / 2
            score = score - normal(here, mu[i].detach(), logvar[i].detach()).sum()
            (slope,) = torch.autograd.grad(score, here)
            surrogate = surrogate - (shares[k, i] ** 2 * slope * z[k, i]).sum() / B
    exact = gradients(surrogate, vae)
    decoder = gradients(plainly("iwae", vae, x, eps), vae)
    exact = {n: decoder[n] if n.startswith("decoder") else g for n, g in exact.items()}
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-9)


def encoder_means(objective, vae, x, steps):
    """Gradients by the encoder's heads, one a step: [steps, numbers]."""
    # What is refused is measured here too, so the settings go unchecked.
    config = settings("iwae").model_copy(update={"objective": objective})
    found = []
    for _ in range(steps):
        eps = torch.randn(K, len(x), D, dtype=torch.double)
        each = gradients(training_loss(config, vae, draw(vae, x, eps), 1.0, 0.0, N), vae)
        found.append(torch.cat([each[name].flatten() for name in each if "proj" in name]))
    return torch.stack(found)


@pytest.mark.parametrize("network", [*PLAIN, "upsample"])
def test_both_gradients_of_the_weighted_bound_have_one_mean_unless_draws_share_statistics(network):
    vae, (x, _) = model(network, 0.5), inputs(8)
    iwae, dreg = (encoder_means(objective, vae, x, 60) for objective in ("iwae", "dreg"))
    error = ((iwae.var(0) + dreg.var(0)) / len(iwae)).sqrt() + 1e-12
    distance = ((iwae.mean(0) - dreg.mean(0)).abs() / error).max()
    assert distance < 5 if network in PLAIN else distance > 6


@pytest.mark.parametrize("network", sorted(set(NETWORKS) - set(PLAIN)))
def test_what_would_have_another_gradient_is_refused(network):
    with pytest.raises(ValidationError, match="mixes the draws"):
        settings("dreg", network=network)


def test_the_variance_that_fits_best_is_for_the_mean_over_the_draws_alone():
    """There its derivative vanishes, and it may be taken for a constant; of weighted draws not."""
    raw = torch.randn(K, B, 1, *SIZE, dtype=torch.double)
    raw = (raw * torch.tensor([0.1, 1.0, 4.0]).view(K, 1, 1, 1, 1)).requires_grad_()
    x = torch.rand(B, 1, *SIZE, dtype=torch.double)
    head = HEADS["gaussian-optimal"](0.5).double().train()

    def ours():
        return head(raw).log_prob(x)

    def whole():
        """log p(x|z), the variance a function of the draws."""
        error = (x - raw.sigmoid()).square()
        log_variance = math.prod(SIZE) * error.mean().log()
        return -0.5 * (error.sum((2, 3, 4)) / error.mean() + log_variance)

    def both(reduce):
        return [torch.autograd.grad(reduce(log_px()), raw)[0] for log_px in (ours, whole)]

    torch.testing.assert_close(*both(lambda log_px: log_px.mean()), rtol=1e-7, atol=1e-9)
    found, exact = both(lambda log_px: log_px.logsumexp(0).mean())
    assert (found - exact).norm() > 0.1 * exact.norm()
    for objective in ("iwae", "dreg"):
        with pytest.raises(ValidationError, match="gaussian-learned"):
            settings(objective, network="residual", likelihood="gaussian-optimal")
