"""Shards: written, read from the disk and from an address, and what is wrong with them."""

import hashlib
import json
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from mirror_server import Server
from own_pictures import WHOLE, picture, png, write

from convvae import errors
from convvae.cli.common import trained_on
from convvae.cli.main import main
from convvae.data import canonical, fingerprint, load, short_name
from convvae.data.own import archives
from convvae.data.own.shards import Index, Pattern, names_shards

pytestmark = pytest.mark.usefixtures("own_cache")
THREE = "shards/pets-{0..2}.tar"


@pytest.fixture
def shards(pets):
    """The pets in three shards: the folder."""
    assert main(["shard", "pets", "--out", THREE]) == 0
    return pets.parent / "shards"


@pytest.fixture
def address(shards, server, monkeypatch):
    """The same at an address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for path in shards.iterdir():
        server.answers[f"/pets/{path.name}"] = (200, path.read_bytes())
    shutil.rmtree(shards)
    return server.mirror("pets")


def same(found, expected):
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.labels, expected.labels)
    assert found.classes == expected.classes


def change(path, **changes):
    """Write an index with other facts of its second shard."""
    content = json.loads(path.read_text())
    content["shards"][1] |= changes
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("word", [THREE, "shards", "shards/pets-index.json"])
def test_shards_are_the_folder_that_was_sharded(shards, word, split):
    """To the order of the images, which follows from their content alone."""
    same(load(word, split), load("pets", split))


def test_how_many_shards_does_not_matter(shards):
    assert main(["shard", "shards", "--out", "again/{00..10}.tar"]) == 0
    same(load("again"), load(THREE))


def test_the_layout_is_that_of_webdataset(shards):
    names, labels = [], {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as archive:
            members = archive.getmembers()
            names.append([member.name for member in members])
            for label, image in zip(members[::2], members[1::2], strict=True):
                assert label.name.removesuffix(".cls") == image.name.removesuffix(".png")
                labels[image.name] = int(archive.extractfile(label).read())
    # Every third image of the sorted folder, so that each shard has some of both kinds.
    found = [re.match(r"(cat|dog)/(deep/)?(\d{8})-", name).groups() for name in names[1][::2]]
    assert [int(number) for *_, number in found] == [1, 4, 7, 10, 13, 16, 19]
    assert {kind for kind, *_ in found} == {"cat", "dog"}
    assert labels == {name: int(name.startswith("dog")) for name in labels}
    index = Index.model_validate_json((shards / "pets-index.json").read_text())
    assert [shard.images for shard in index.shards] == [7, 7, 6]
    assert index.classes == ("cat", "dog")
    for facts in index.shards:
        content = (shards / facts.name).read_bytes()
        assert (facts.bytes, facts.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_same_images_make_the_same_shards(shards, pets):
    (pets / "dog" / "19.png").touch()
    assert main(["shard", "pets", "--out", "again/pets-{0..2}.tar"]) == 0
    for path in shards.iterdir():
        assert (Path("again") / path.name).read_bytes() == path.read_bytes()


def test_only_images_and_labels_are_read(monkeypatch):
    """Of a shard with metadata, masks and text in the samples, as others write them."""
    with tarfile.open("x-0.tar", "w") as archive:
        for number in range(6):
            write(Path("1.png"), picture(number))
            Path("1.cls").write_text(f"{number % 3}\n")
            for kind in ("cls", "json", "npy", "png", "txt"):
                file = Path("1.png" if kind != "cls" else "1.cls")
                archive.add(file, f"./a.b/{number}.{kind}")
    content = Path("x-0.tar").read_bytes()
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    shard = {"name": "x-0.tar", "images": 6, **facts}
    Path("x-index.json").write_text(json.dumps({"format": "convvae shards 1", "shards": [shard]}))
    read = []

    def noted(archive, member, of=archives._tar_member):
        read.append(member.name)
        return of(archive, member)

    monkeypatch.setattr(archives, "_tar_member", noted)
    found = load("x-{0..0}.tar", prepare=WHOLE)
    assert {Path(name).suffix for name in read} == {".cls", ".png"}
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.classes is None
    assert list(found.names) == [f"a.b/{number}.png" for number in range(6)]


def test_parts_and_arrays_go_into_shards():
    """A published set keeps its test images, and its pixels."""
    assert main(["shard", "digits", "--out", "d-{0..3}.tar"]) == 0
    for split, count in (("train", 1437), ("test", 360)):
        found, expected = load("d-{0..3}.tar", split), load("digits", split)
        assert len(found) == count
        digests = [
            sorted(zip(map(bytes, part.images.numpy()), part.labels.tolist(), strict=True))
            for part in (found, expected)
        ]
        assert digests[0] == digests[1]


def test_an_address_is_the_folder(address, server, pets):
    expected = load("pets")
    for word in (f"{address}pets-{{0..2}}.tar", f"{address}pets-index.json"):
        same(load(word), expected)
    shards = [f"/pets/pets-{number}.tar" for number in range(3)]
    # What was decoded is found by the index alone.
    assert server.asked == ["/pets/pets-index.json", *shards, "/pets/pets-index.json"]
    shutil.rmtree("cache/images")
    same(load(word), expected)
    assert server.asked[5:] == ["/pets/pets-index.json"]
    damaged = next(Path("cache/shards").iterdir())
    damaged.write_bytes(b"damaged")
    shutil.rmtree("cache/images")
    same(load(word), expected)
    assert len(server.asked) == 8


def test_words(tmp_path, shards):
    assert names_shards("https://example.org/x-{000..127}.tar")
    assert not names_shards("pets")
    assert canonical(THREE) == str(tmp_path / THREE)
    assert canonical("https://e.org/a-{0..3}.tar") == "https://e.org/a-{0..3}.tar"
    assert [short_name(word) for word in (THREE, "https://e.org/a-index.json")] == [
        "pets",
        "a-index",
    ]
    assert Pattern.of("{7..12}.tar") == Pattern(
        "", tuple(f"{n}.tar" for n in range(7, 13)), "index.json"
    )
    assert fingerprint(load(THREE)) == fingerprint(load("shards"))


def test_a_model_file_chooses_no_address(metadata_of):
    with pytest.raises(errors.UsageError, match="name it yourself"):
        trained_on(metadata_of("https://example.org/x-{000..127}.tar"))


@pytest.fixture
def metadata_of():
    """What of a model's file is looked at."""

    class Metadata:
        def __init__(self, data):
            self.data = data

    return Metadata


def cut(folder):
    path = folder / "pets-1.tar"
    path.write_bytes(path.read_bytes()[:-512])


def flip(folder):
    path = folder / "pets-1.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "missing": (lambda f: (f / "pets-1.tar").unlink(), errors.UnknownDataError, "pets-1.tar"),
    "cut": (cut, errors.ChecksumError, "pets-1.tar has .* bytes, and pets-index.json says"),
    "flipped": (flip, errors.ChecksumError, "pets-1.tar is not the shard that pets-index.json"),
    "no index": (
        lambda f: (f / "pets-index.json").unlink(),
        errors.UnknownDataError,
        "pets-index.json, the index of these shards",
    ),
    "no JSON": (
        lambda f: (f / "pets-index.json").write_text('{"format": "convvae shards 1", '),
        errors.CorruptDataError,
        "is no index of shards",
    ),
    "other count": (
        lambda f: change(f / "pets-index.json", images=8),
        errors.CorruptDataError,
        "pets-1.tar holds 7 images, and pets-index.json says 8",
    ),
    "other digest": (
        lambda f: change(f / "pets-index.json", sha256="0" * 64),
        errors.ChecksumError,
        "its sha256 is another",
    ),
    "twice": (
        lambda f: change(f / "pets-index.json", name="pets-0.tar"),
        errors.CorruptDataError,
        "lists pets-0.tar twice",
    ),
    "out of the folder": (
        lambda f: change(f / "pets-index.json", name="../pets-1.tar"),
        errors.CorruptDataError,
        "is no index of shards .*shards.1.name",
    ),
    "other names": (
        lambda f: change(f / "pets-index.json", name="other.tar"),
        errors.UnknownDataError,
        "other.tar cannot be read",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_wrong_is_said_in_a_line(shards, what):
    damage, kind, words = DAMAGE[what]
    damage(shards)
    with pytest.raises(kind, match=words) as caught:
        load(THREE)
    assert "\n" not in str(caught.value)


def test_damage_after_the_first_time_is_found_as_well(shards):
    load(THREE)
    flip(shards)
    with pytest.raises(errors.ChecksumError, match=r"pets-1\.tar is not the shard"):
        load(THREE)


def test_a_range_that_the_index_does_not_list(shards):
    with pytest.raises(errors.ChecksumError, match=r"names 2 shards, and pets-index\.json lists"):
        load("shards/pets-{0..1}.tar")
    with pytest.raises(errors.UnknownDataError, match="names 0 shards"):
        load("shards/pets-{2..0}.tar")
    shutil.copy("shards/pets-index.json", "shards/cats-index.json")
    with pytest.raises(errors.UnknownDataError, match=r"cats-index.json, pets-index.json\); name"):
        load("shards")


def test_a_label_that_is_no_class(shards):
    content = json.loads((shards / "pets-index.json").read_text())
    content["classes"] = ["cat"]
    (shards / "pets-index.json").write_text(json.dumps(content))
    with pytest.raises(errors.CorruptDataError, match="has the label 1, and the index names 1 cla"):
        load(THREE)


ANSWERS = {
    "missing": ((404, b""), errors.DownloadError, "pets-1.tar could not be downloaded .HTTP 404"),
    "another": ((200, b"x" * 9216), errors.ChecksumError, "pets-1.tar is not the file that its"),
    "too long": ((200, b"x" * 99999), errors.DownloadError, "more than [0-9,]+ bytes"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_address_that_has_another_shard(address, server: Server, what):
    answer, kind, words = ANSWERS[what]
    server.answers["/pets/pets-1.tar"] = answer
    with pytest.raises(kind, match=words):
        load(f"{address}pets-{{0..2}}.tar")
    kept = [path.suffix for path in Path("cache/shards").iterdir()]
    assert kept == [".tar"], "the first shard, and nothing in the making"


@pytest.mark.parametrize(
    ("word", "kind", "words"),
    [
        ("http://127.0.0.1:9/x-{0..3}.tar", errors.DownloadError, "x-index.json could not"),
        ("http://example.com/x-{0..3}.tar", errors.DownloadError, "is not https"),
        ("https://example.com/x.tar", errors.UnknownDataError, "names no shards"),
        ("x-{0..3}.tar", errors.UnknownDataError, "the index of these shards"),
    ],
)
def test_an_address_that_cannot_be_reached(monkeypatch, word, kind, words):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(kind, match=re.escape(words)):
        load(word)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (("pets", "--out", "new/x.tar"), 3, "names no shards: write a range"),
        (("pets", "--out", "new/x-{00..20}.tar"), 3, "20 images are too few for 21 shards"),
        (("pets", "--out", THREE), 12, "would be replaced"),
        (("shards", "--out", THREE, "--overwrite"), 12, "is what this command reads"),
        (("nothing", "--out", "new/x-{0..1}.tar"), 4, "no data set and no file"),
        (("bad.zip", "--out", "new/x-{0..1}.tar"), 8, "../up.png cannot be read (its path points"),
    ],
)
def test_what_cannot_be_sharded_leaves_nothing(shards, capsys, line, code, words):
    before = (shards / "pets-0.tar").read_bytes()
    with zipfile.ZipFile("bad.zip", "w") as archive:
        for name in ("../up.png", "0.png", "1.png"):
            archive.writestr(name, png(picture(0)))
    capsys.readouterr()
    assert main(["shard", *line]) == code
    assert words in capsys.readouterr().err
    assert not [path for path in Path("new").glob("*") if path.exists()]
    assert (shards / "pets-0.tar").read_bytes() == before
    assert main(["shard", "bad.zip", "--out", "new/x-{0..1}.tar", "--skip-bad"]) == 0
    assert len(load("new", prepare=WHOLE)) == 2
