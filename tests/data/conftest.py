"""What the tests of data share: small published sets, and a folder of pets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mirror_server import Server
from own_pictures import picture, write
from published_sets import SPLITS, Sets, gz, idx

from convvae.data.published.mnist import PUBLISHED, PublishedFile, digest


@pytest.fixture
def no_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nothing outside the test is read or written unless the test asks for it."""
    monkeypatch.delenv("CONVVAE_DATA", raising=False)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> Sets:
    """The content of every file of three sets of 12 and 5 images of 4x6, by set and file name."""
    contents: Sets = {}
    for seed, name in enumerate(PUBLISHED):
        contents[name] = {}
        random = np.random.default_rng(seed)
        splits: dict[str, tuple[PublishedFile, ...]] = {}
        for split, count in SPLITS:
            files = []
            for file, shape in zip(
                PUBLISHED[name].files(split), ((count, 4, 6), (count,)), strict=True
            ):
                content = idx(random.integers(0, 256 if len(shape) == 3 else 10, shape))
                contents[name][file.name] = content
                algorithm = file.digest.partition(":")[0]
                published = digest(algorithm, gz(content) if file.digest_of_gz else content)
                files.append(replace(file, shape=shape, digest=published))
            splits[split] = tuple(files)
        small = replace(PUBLISHED[name], mirrors=("http://127.0.0.1:9/",), **splits)
        monkeypatch.setitem(PUBLISHED, name, small)
    return contents


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVVAE_DATA", raising=False)
    # Files of a test are always new; whether that is looked at has a test of its own.
    monkeypatch.setattr("convvae.data.cache.store._SETTLED", -60.0)
    return tmp_path / "cache" / "images"


@pytest.fixture
def pets(tmp_path):
    """20 images of 8x10 in two folders, half of them two levels deep."""
    for number in range(20):
        folder = tmp_path / "pets" / ("cat", "dog")[number % 2]
        folder = folder / "deep" if number < 10 else folder
        write(folder / f"{number:02}.png", picture(number))
    return tmp_path / "pets"
