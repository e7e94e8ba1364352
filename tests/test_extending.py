"""Parts of one's own: registered by name, they train, are saved, loaded and evaluated as others."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import convvae
from convvae import ModelConfig, TrainConfig, distributions, networks, runtime
from convvae.cli.main import main
from convvae.distributions import HEADS, PRIORS, StandardNormal
from convvae.distributions.likelihoods import DiscretizedLogisticHead, GaussianHead
from convvae.errors import ConfigError, ModelFileError
from convvae.evaluation import doctor
from convvae.model import ModelMetadata, objectives, save_model
from convvae.networks import NETWORKS, StridedEncoder, UpsampleDecoder
from convvae.parts import (
    LIKELIHOOD_NAMES,
    NETWORK_NAMES,
    OBJECTIVE_NAMES,
    PRIOR_NAMES,
    WITHOUT_BATCH_STATISTICS,
)

GUIDE = Path(__file__).parents[1] / "docs" / "extending.md"
NAMES = (NETWORK_NAMES, LIKELIHOOD_NAMES, PRIOR_NAMES, OBJECTIVE_NAMES)
TABLES = (NETWORKS, HEADS, PRIORS, objectives.OBJECTIVES)
OWN = {"network": "flat", "likelihood": "logistic", "prior": "laplace", "objective": "renyi"}
TINY = {"latent_dims": 2, "max_filters": 4, "batch_size": 16, "epochs": 1, "device": "cpu"}


@pytest.fixture(autouse=True)
def _forgotten():
    """What a test registers is forgotten after it."""
    saved = [dict(table) for table in TABLES]
    yield
    forget()
    for table, before in zip(TABLES, saved, strict=True):
        table.clear()
        table.update(before)


def forget():
    for names in NAMES:
        names._registered.clear()
    WITHOUT_BATCH_STATISTICS.intersection_update({"residual", "ladder"})


@pytest.fixture
def guide():
    """The Python of the guide, a block each."""
    if not GUIDE.exists():
        pytest.skip("the tests run outside the repository")
    return re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((40, 8, 8))


def register_copies():
    """Convvae's own parts under other names."""
    networks.register("copy", StridedEncoder, UpsampleDecoder)
    distributions.register_likelihood("copy", GaussianHead)
    distributions.register_prior("copy", lambda dims, _: StandardNormal(dims))
    objectives.register("copy", lambda _, draws, beta, __: objectives.loss(draws.terms, beta))


def metadata(config):
    return ModelMetadata(model=config, data="", epochs=1, images=1, versions=runtime.versions())


def test_the_guide_runs(guide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in guide:
        exec(block, names)
    config = names["model"].config
    assert all(getattr(config, name) == OWN[name] for name in ("network", "likelihood", "prior"))
    assert "bound" in capsys.readouterr().out
    forget()
    with pytest.raises(ModelFileError) as caught:
        convvae.load_model("mine.safetensors")
    assert str(caught.value) in " ".join(GUIDE.read_text().split())


@pytest.mark.parametrize("setting", OWN)
def test_each_kind_trains_saves_loads_and_evaluates(setting, guide, images, tmp_path):
    names = {}
    for block in guide[:4]:
        exec(block, names)
    trained = convvae.train(images, **TINY, **{setting: OWN[setting]})
    path = tmp_path / "mine.safetensors"
    save_model(path, trained.model, trained.metadata)
    again, found = convvae.load_model(path)
    assert found == trained.metadata
    if setting != "objective":
        assert getattr(again.config, setting) == OWN[setting]
    before, after = (convvae.evaluate(model, images) for model in (trained.model, again))
    assert before == after
    assert np.isfinite(after.bound.mean)


@pytest.mark.parametrize("setting", OWN)
def test_a_copy_under_another_name_computes_the_same(setting, images):
    register_copies()
    settings = {**TINY, "kl_schedule": "linear", "kl_warmup": 100}
    ours = convvae.train(images, **settings)
    own = convvae.train(images, **settings, **{setting: "copy"})
    for mine, theirs in zip(
        own.model.state_dict().values(), ours.model.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("setting", ["network", "likelihood", "prior"])
def test_a_file_that_names_an_unregistered_part_says_so_in_one_line(setting, tmp_path, capsys):
    register_copies()
    config = ModelConfig(
        image_size=8, channels=1, latent_dims=2, max_filters=4, **{setting: "copy"}
    )
    path = tmp_path / "mine.safetensors"
    save_model(path, convvae.VAE(config), metadata(config))
    forget()
    assert main(["info", str(path)]) == ModelFileError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    for part in (str(path), f"{setting} 'copy'", "register", "before loading it"):
        assert part in line


def test_an_unregistered_objective_is_refused_with_what_registers_it():
    with pytest.raises(ConfigError, match=r"renyi.*choose elbo.*convvae\.model\.objectives\.regis"):
        TrainConfig.checked({"data": "digits", "objective": "renyi"}, "train")


def test_a_misspelt_name_is_told_the_nearest():
    register_copies()
    with pytest.raises(ConfigError, match=r"no network 'cpoy' \(did you mean copy\?\)"):
        TrainConfig.checked({"data": "digits", "network": "cpoy"}, "train")


@pytest.mark.parametrize("name", ["upsample", "Mine", "", "my part", "../x"])
def test_a_name_that_is_taken_or_none_is_refused(name):
    with pytest.raises(ConfigError, match=r"convvae's own|cannot name"):
        networks.register(name, StridedEncoder, UpsampleDecoder)
    assert name == "upsample" or name not in NETWORKS


def test_registering_again_replaces():
    networks.register("copy", StridedEncoder, UpsampleDecoder, uses_batch_statistics=False)
    config = ModelConfig(image_size=8, channels=1, latent_dims=2, max_filters=4, network="copy")
    assert not config.uses_batch_statistics
    networks.register("copy", StridedEncoder, UpsampleDecoder)
    assert config.uses_batch_statistics
    assert list(NETWORK_NAMES)[-1] == "copy"


def test_the_help_lists_what_is_registered(capsys):
    register_copies()
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert capsys.readouterr().out.count(",copy}") >= 2


def test_own_objectives_take_no_extras_of_the_elbo():
    register_copies()
    with pytest.raises(ConfigError, match="mmd goes with --objective elbo only"):
        TrainConfig.checked({"data": "digits", "objective": "copy", "mmd": 1.0}, "train")


def test_bits_per_dimension_follow_the_head(images):
    class Mass(DiscretizedLogisticHead):
        pass

    distributions.register_likelihood("mass", Mass)
    distributions.register_likelihood("discretized-not", GaussianHead)
    found = {}
    for name in ("mass", "discretized-not"):
        config = ModelConfig(
            image_size=8, channels=1, latent_dims=2, max_filters=4, likelihood=name
        )
        found[name] = convvae.evaluate(convvae.VAE(config).eval(), images).bits_per_dim
    assert found["mass"] is not None
    assert found["discretized-not"] is None


def test_nothing_is_said_of_black_or_white_pixels_under_an_own_likelihood():
    binary = torch.randint(2, (10, 1, 8, 8), dtype=torch.uint8) * 255
    assert doctor.of_images(binary, "gaussian")
    assert not doctor.of_images(binary, "mine")
