"""What several tests share: the real MNIST folder, a tiny trained run, and a strict CI."""

import hashlib
import os
import shutil
import signal
import struct
from dataclasses import replace
from pathlib import Path

# The models of the tests are tiny: a second thread only adds waiting. Set before torch starts, so
# that the processes that tests start have it too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from benchmarks.browser import browser, executable
from convvae import data
from convvae.config import ModelConfig, TrainConfig
from convvae.data.published.mnist import PUBLISHED
from convvae.model.checkpoint import ModelMetadata, load_model, save_model
from convvae.model.run_folder import RunFolder
from convvae.model.vae import VAE
from convvae.training.run import train

SLOWEST = (
    *("faults/", "test_docs", "test_distributed", "test_graphs", "explorer/", "benchmarks/"),
    *("test_guides", "test_examples", "test_latents", "test_run", "test_signals", "test_holdout"),
)
"""Files that several processes had better begin with, so that none is left with one at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not any(name in item.nodeid for name in SLOWEST))


@pytest.fixture(autouse=True)
def _threads_of_before():
    """Benchmarks choose the threads of their process, and so the last bits of what follows."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="session", autouse=True)
def _a_terminal_that_can_close():
    """Under nohup, or in the background, its signals are ignored, by what tests start too."""
    handlers = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {kind: signal.signal(kind, handler) for kind, handler in handlers.items()}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


@pytest.fixture(scope="session")
def mnist_dir():
    folder = os.environ.get("CONVVAE_DATA")
    if not folder:
        pytest.skip("CONVVAE_DATA does not name a folder with the real MNIST")
    return Path(folder)


@pytest.fixture(scope="session")
def _fewer(mnist_dir, tmp_path_factory):
    """The first images of the real MNIST as a set of their own: its folder, and what it holds."""
    folder, parts = tmp_path_factory.mktemp("mnist"), {}
    for split, count in (("train", 2048), ("test", 500)):
        found = data.load("mnist", split, data_dir=mnist_dir, limit=count)
        arrays = (found.images.squeeze(1).numpy(), found.labels.byte().numpy())
        files = []
        for file, values in zip(PUBLISHED["mnist"].files(split), arrays, strict=True):
            header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            content = header + values.tobytes()
            (folder / file.name).write_bytes(content)
            told = f"sha256:{hashlib.sha256(content).hexdigest()}"
            files.append(replace(file, shape=values.shape, digest=told))
        parts[split] = tuple(files)
    return folder, replace(PUBLISHED["mnist"], **parts)


@pytest.fixture
def fewer_digits(_fewer, monkeypatch):
    """`mnist` is its first 2,048 and 500 images: for what would hold for any images."""
    folder, known = _fewer
    monkeypatch.setitem(PUBLISHED, "mnist", known)
    monkeypatch.setenv("CONVVAE_DATA", str(folder))
    return folder


@pytest.fixture
def tiny_model():
    """A model small enough for exact tests: 3 latents, 12x10 pixels."""
    return ModelConfig(image_size=(12, 10), channels=1, latent_dims=3, max_filters=8)


@pytest.fixture
def tiny_config(tmp_path):
    """A training run of a few seconds on the embedded digits."""
    return TrainConfig(
        data="digits",
        limit=100,
        max_filters=8,
        latent_dims=2,
        epochs=2,
        batch_size=32,
        log_every=2,
        report=False,
        validation=0,
        device="cpu",
        out=tmp_path / "run",
    )


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A finished run folder, shared: do not write to it."""
    config = TrainConfig(
        data="digits",
        limit=200,
        max_filters=8,
        latent_dims=2,
        epochs=2,
        batch_size=50,
        log_every=2,
        validation=0,
        device="cpu",
        out=tmp_path_factory.mktemp("runs") / "digits",
    )
    return train(config)


@pytest.fixture
def run_like(finished_run, tmp_path):
    """Makes a run beside the finished one: other settings, and other weights by its number."""

    def make(name, number, /, **settings):
        run = RunFolder(Path(shutil.copytree(finished_run.path, tmp_path / name)))
        content = run.read_config()
        content["settings"] |= settings
        run.write_config(content)
        vae, metadata = load_model(finished_run.path)
        model = {key: settings[key] for key in settings if key in ModelConfig.model_fields}
        beside = {key: settings[key] for key in settings if key in ModelMetadata.model_fields}
        config = vae.config.model_copy(update=model)
        changed = VAE(config)
        changed.load_state_dict({**changed.state_dict(), **vae.state_dict()})
        noise = torch.Generator().manual_seed(number)
        for weights in changed.parameters():
            weights.data += 0.03 * torch.randn(weights.shape, generator=noise)
        updated = metadata.model_copy(update={**beside, "model": config})
        save_model(run.model, changed.eval(), updated)
        return run

    return make


@pytest.fixture(scope="session")
def chromium():
    """A real browser; only CI must have one."""
    if executable() is None and not os.environ.get("CONVVAE_CI"):
        pytest.skip("there is no chromium here: apt-get install chromium")
    with browser() as opened:
        yield opened


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the Hub: a folder for each repository."""
    import huggingface_hub

    root = tmp_path / "hub"

    class HfApi:
        def __init__(self, token=None):
            self.token = token

        def create_repo(self, repo_id, *, private, exist_ok):
            assert exist_ok
            if self.token == "wrong":
                raise huggingface_hub.errors.HFValidationError("Bad\ntoken. And more.")
            (root / repo_id).mkdir(parents=True, exist_ok=True)
            (root / repo_id / "private").write_text(str(private))
            return f"https://huggingface.co/{repo_id}"

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            assert "convvae" in commit_message
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)

    def download(repo_id, filename, *, revision, token):
        path = root / repo_id / filename
        if not path.exists():
            raise OSError(f"404: no {repo_id} at {revision}. Try later.")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return root


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter):
    """In CI no test may skip: a skipped one says what CI lacks."""
    if os.environ.get("CONVVAE_CI") and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("a test was skipped in CI, which counts as a failure", red=True)


def pytest_sessionfinish(session, exitstatus):
    if hasattr(session.config, "workerinput"):
        return  # one of several processes; the one that has the reports decides
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CONVVAE_CI") and exitstatus == 0 and reporter.stats.get("skipped"):
        session.exitstatus = 1
