"""Archives of images of one's own."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from own_pictures import WHOLE, picture, png

from convvae import errors
from convvae.data import Preparation, load

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("form", ["zip", "tar", "gztar", "xztar"])
def test_an_archive_is_the_folder_that_was_packed(pets, form):
    expected = load("pets", prepare=WHOLE)
    archive = shutil.make_archive("packed", form, ".", "pets")
    found = load(archive, prepare=WHOLE)
    order = np.argsort(list(found.names))
    assert [found.names[i].removeprefix("pets/") for i in order] == list(expected.names)
    assert torch.equal(found.images[order], expected.images)
    assert torch.equal(found.labels[order], expected.labels)
    assert found.classes == ("cat", "dog")
    assert not (Path.cwd() / "cache" / "images" / "pets").exists()


def zipped(members, **options):
    with zipfile.ZipFile("a.zip", "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return "a.zip"


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/x.png"]
)
def test_a_path_out_of_the_archive_is_refused(name, tmp_path):
    archive = zipped({name: png(picture(0)), "good.png": png(picture(1))})
    with pytest.raises(errors.CorruptDataError, match="its path points outside of the archive"):
        load(archive, prepare=WHOLE)
    found = load(archive, prepare=Preparation(split="none", skip_bad=True))
    assert list(found.names) == ["good.png"]
    assert not list(tmp_path.parent.rglob("evil.png"))


def test_a_tar_with_a_link_or_a_path_out_of_it(pets):
    with tarfile.open("a.tar", "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.add(pets / "dog" / "19.png", "../up.png")
        archive.add(pets / "dog" / "19.png", "in.png")
    found = load("a.tar", prepare=Preparation(split="none", skip_bad=True))
    assert list(found.names) == ["in.png"]


def test_an_archive_that_expands_without_bound(monkeypatch):
    monkeypatch.setattr("convvae.data.own.archives.MAX_FREE", 10_000)
    content = b"\0" * 3_000_000
    archive = zipped({"a.png": content}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(errors.CorruptDataError, match="refused as a bomb"):
        load(archive, prepare=WHOLE)
    with tarfile.open("a.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("big.bin")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
        tar.addfile(tarfile.TarInfo("b.png"))
    with pytest.raises(errors.CorruptDataError, match="refused as a bomb"):
        load("a.tar.gz", prepare=WHOLE)


def test_members_may_not_be_too_many_or_too_large(monkeypatch):
    archive = zipped({f"{n}.png": png(picture(n)) for n in range(4)})
    monkeypatch.setattr("convvae.data.own.archives.MAX_FILE_BYTES", 50)
    with pytest.raises(errors.CorruptDataError, match="too much for an image"):
        load(archive, prepare=WHOLE)
    monkeypatch.setattr("convvae.data.own.archives.MAX_MEMBERS", 3)
    with pytest.raises(errors.CorruptDataError, match="in 4 files: refused as a bomb"):
        load(archive, prepare=WHOLE)


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
def test_a_truncated_archive(pets, form):
    archive = Path(shutil.make_archive("packed", form, ".", "pets"))
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(errors.ConvvaeError) as caught:
        load(str(archive), prepare=WHOLE)
    assert "packed" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_member_with_a_wrong_checksum_is_unreadable():
    content = png(picture(0))
    archive = Path(zipped({"a.png": content, "b.png": png(picture(1))}))
    archive.write_bytes(archive.read_bytes().replace(content[40:60], b"\0" * 20, 1))
    with pytest.raises(errors.CorruptDataError, match=r"a\.png \(damaged in the archive"):
        load("a.zip", prepare=WHOLE)
