"""Sources of one's own: what is in them, how they are divided, cached, and what is refused."""

import csv
import io
import os
import shutil
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convvae import errors
from convvae.data import ImageSet, Preparation, canonical, fingerprint, load, short_name, undivided
from convvae.data.cache import ingest as ingest_module
from convvae.data.cache import store as cache_module
from convvae.data.cache.pool import Task, decode_all
from convvae.data.decode import Wanted

WHOLE = Preparation(split="none")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVVAE_DATA", raising=False)
    # Files of a test are always new; whether that is looked at has a test of its own.
    monkeypatch.setattr("convvae.data.cache.store._SETTLED", -60.0)
    return tmp_path / "cache" / "images"


def picture(seed, size=(8, 10), mode="RGB"):
    shape = (*size, 3) if mode == "RGB" else size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else png(content))
    return path


@pytest.fixture
def pets(tmp_path):
    """20 images of 8x10 in two folders, half of them two levels deep."""
    for number in range(20):
        folder = tmp_path / "pets" / ("cat", "dog")[number % 2]
        folder = folder / "deep" if number < 10 else folder
        write(folder / f"{number:02}.png", picture(number))
    return tmp_path / "pets"


def pixels(path):
    return torch.tensor(np.asarray(Image.open(path))).permute(2, 0, 1)


# --- Folders -------------------------------------------------------------------------------------


def test_a_folder_gives_its_images_names_and_labels(pets):
    found = load("pets", prepare=WHOLE)
    assert found.images.shape == (20, 3, 8, 10)
    assert list(found.names) == sorted(p.relative_to(pets).as_posix() for p in pets.rglob("*.png"))
    for image, name in zip(found.images, found.names, strict=True):
        assert torch.equal(image, pixels(pets / name))
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [("cat", "dog").index(n.split("/")[0]) for n in found.names]


def test_the_parts_of_a_divided_folder(pets, capsys):
    both = {split: load("pets", split) for split in ("train", "test")}
    names = {split: set(found.names) for split, found in both.items()}
    assert not names["train"] & names["test"]
    assert len(names["train"] | names["test"]) == 20
    assert len(names["test"]) >= 1
    for found in both.values():
        for image, name, label in zip(found.images, found.names, found.labels, strict=True):
            assert torch.equal(image, pixels(pets / name))
            assert name.startswith(found.classes[label])
    err = capsys.readouterr().err
    assert f"{len(names['test'])} test images of 20, the others held out by content" in err
    assert "--split 0.1" in err


def test_an_image_stays_in_its_part_when_others_are_added(tmp_path):
    def parts(prepare):
        return {
            split: set(load("grow", split, prepare=prepare).names) for split in ("train", "test")
        }

    half = Preparation(split="0.5")
    for number in range(30):
        write(tmp_path / "grow" / f"{number}.png", picture(number))
    before = parts(half)
    assert 5 < len(before["test"]) < 25
    for number in range(30, 60):
        write(tmp_path / "grow" / f"{number}.png", picture(number))
    after = parts(half)
    for split in ("train", "test"):
        assert before[split] < after[split]
    assert parts(Preparation(split="0.2"))["test"] < after["test"]
    write(tmp_path / "grow" / "copy.png", (tmp_path / "grow" / "0.png").read_bytes())
    again = parts(half)
    assert any({"copy.png", "0.png"} <= names for names in again.values())


def test_folders_train_and_test_are_taken(tmp_path, capsys):
    for split, count in (("train", 5), ("test", 3), ("other", 2)):
        for number in range(count):
            name = f"{split}/{'ab'[number % 2]}/{number}.png"
            write(tmp_path / "set" / name, picture(count * 100 + number))
    for rule in ("auto", "folders"):
        test = load("set", "test", prepare=Preparation(split=rule))
        assert sorted(test.names) == ["test/a/0.png", "test/a/2.png", "test/b/1.png"]
        assert len(load("set", prepare=Preparation(split=rule))) == 5
        assert test.classes == ("a", "b", "other") or test.classes == ("a", "b")
    assert "as train and test of the source say" in capsys.readouterr().err
    assert len(load("set", prepare=WHOLE)) == 10
    mixed = [load("set", s, prepare=Preparation(split="0.3")).names for s in ("train", "test")]
    assert sum(map(len, mixed)) == 10


def test_folders_that_are_not_there(pets):
    with pytest.raises(errors.ConfigError, match="needs the folders train and test"):
        load("pets", prepare=Preparation(split="folders"))


@pytest.mark.parametrize("rule", ["0", "1", "1.5", "-0.1", "half", "nan", ""])
def test_a_rule_that_is_none(pets, rule):
    with pytest.raises(errors.ConfigError, match="choose auto, folders, none or a share"):
        load("pets", prepare=Preparation(split=rule))


def test_published_sets_have_test_images_of_their_own():
    with pytest.raises(errors.ConfigError, match="digits has test images of its own"):
        load("digits", prepare=Preparation(split="0.2"))


def test_a_small_share_still_holds_one_out(tmp_path):
    for number in range(2):
        write(tmp_path / "two" / f"{number}.png", picture(number))
    assert [len(load("two", s)) for s in ("train", "test")] == [1, 1]
    tiny = Preparation(split="0.000001")
    assert [len(load("two", s, prepare=tiny)) for s in ("train", "test")] == [1, 1]


def test_one_image(tmp_path):
    write(tmp_path / "one" / "a.png", picture(0))
    with pytest.raises(
        errors.ConfigError, match=r"nothing can be held out of 1 image.*`split='none'`"
    ):
        load("one")
    assert len(load("one", prepare=WHOLE)) == 1
    assert load("one", prepare=WHOLE).labels is None


def test_other_files_and_hidden_ones_are_passed_over(pets, capsys):
    write(pets / "notes.txt", b"text")
    write(pets / "cat" / "list.csv", b"text")
    write(pets / ".thumbnails" / "t.png", b"no image")
    write(pets / "cat" / "._01.png", b"no image")
    os.mkfifo(pets / "pipe.png")
    assert len(load("pets", prepare=WHOLE)) == 20
    assert "2 files that are no images were passed over" in capsys.readouterr().err


def test_an_empty_folder_and_one_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.UnknownDataError, match=r"no images in the folder .*empty"):
        load("empty")
    write(tmp_path / "texts" / "a.txt", b"text")
    with pytest.raises(errors.UnknownDataError, match=r"1 other files, such as a\.txt"):
        load("texts")


def test_images_of_many_sizes_need_one(pets):
    write(pets / "cat" / "99.png", picture(99, (9, 9)))
    with pytest.raises(errors.ImageSizeError) as caught:
        load("pets")
    assert "cat/99.png is 9x9, others are 8x10; choose one with `image_size`" in str(caught.value)
    found = load("pets", prepare=Preparation(image_size=(6, 6), split="none"))
    assert found.images.shape == (21, 3, 6, 6)
    cropped = load("pets", prepare=Preparation(image_size=(6, 6), crop=True, split="none"))
    assert not torch.equal(found.images, cropped.images)


@pytest.mark.parametrize("grey", ["a.png", "z.png"])
def test_grey_among_colour_becomes_rgb_wherever_it_stands(tmp_path, grey):
    write(tmp_path / "mix" / "m.png", picture(0))
    write(tmp_path / "mix" / grey, picture(1, mode="L"))
    found = load("mix", prepare=WHOLE)
    assert found.images.shape == (2, 3, 8, 10)
    row = found.images[list(found.names).index(grey)]
    assert torch.equal(row[0], row[2])
    assert load("mix", prepare=Preparation(split="none", channels=1)).images.shape[1] == 1
    assert load("mix", prepare=Preparation(split="none", channels=4)).images.shape[1] == 4


def test_unreadable_files_are_listed_and_left_out_only_if_asked(pets, own_cache, capsys):
    good = (pets / "dog" / "19.png").read_bytes()
    write(pets / "cat" / "a.png", good[:50])
    write(pets / "cat" / "b.jpg", b"text")
    for number in range(3):
        write(pets / "dog" / f"x{number}.png", b"")
    with pytest.raises(errors.CorruptDataError) as caught:
        load("pets")
    message = str(caught.value)
    assert "5 of 25 images cannot be read: cat/a.png (" in message
    assert "cat/b.jpg (not an image of a known format)" in message
    assert "and 2 more" in message
    assert "`skip_bad=True`" in message
    listed = next(own_cache.glob("*/bad.txt")).read_text().splitlines()
    assert [line.split(": ")[0] for line in listed] == [
        *("cat/a.png", "cat/b.jpg"),
        *(f"dog/x{n}.png" for n in range(3)),
    ]
    found = load("pets", prepare=Preparation(split="none", skip_bad=True))
    assert len(found) == 20
    for image, name in zip(found.images, found.names, strict=True):
        assert torch.equal(image, pixels(pets / name))
    assert "5 that cannot be read left out" in capsys.readouterr().err


def test_only_unreadable_files(tmp_path):
    write(tmp_path / "bad" / "a.png", b"text")
    with pytest.raises(errors.CorruptDataError, match="none of the 1 images of bad can be read"):
        load("bad", prepare=Preparation(skip_bad=True))


def test_a_limit(pets):
    few = load("pets", limit=3)
    assert (len(few), len(few.names), len(few.labels)) == (3, 3, 3)
    assert torch.equal(few.images, load("pets").images[:3])
    with pytest.raises(errors.ConfigError, match=r"limit is 21, but pets \(train\) has"):
        load("pets", limit=21)


def test_words_for_sources(pets, tmp_path):
    assert canonical("pets") == str(pets)
    assert canonical("mnist") == "mnist"
    assert canonical("hf:a/b:train") == "hf:a/b:train"
    assert canonical("hf:imagefolder:pets") == f"hf:imagefolder:{pets}"
    assert (undivided("mnist"), undivided("pets")) == ("auto", "none")
    assert [short_name(word) for word in ("mnist", "/a/my pets.zip", "hf:a/b")] == [
        *("mnist", "my-pets", "b"),
    ]
    write(tmp_path / "notes.doc", b"text")
    with pytest.raises(errors.UnknownDataError, match="neither a zip nor a tar"):
        load("notes.doc")


# --- Many processes ------------------------------------------------------------------------------


@pytest.fixture
def by_processes(monkeypatch):
    monkeypatch.setattr("convvae.data.cache.pool.MOST_FILES_IN_PROCESS", 2)
    monkeypatch.setattr("convvae.data.cache.pool._CHUNK_FILES", 3)


def test_processes_give_the_same(pets, own_cache, by_processes):
    write(pets / "cat" / "bad.png", b"text")
    with_bad = Preparation(split="none", skip_bad=True)
    found = load("pets", prepare=with_bad)
    for image, name in zip(found.images, found.names, strict=True):
        assert torch.equal(image, pixels(pets / name))
    assert len(found) == 20
    packed = shutil.make_archive("packed", "zip", "pets")
    assert torch.equal(load(packed, prepare=with_bad).images, found.images)


def test_a_process_that_dies_is_said(pets, by_processes, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", shutil.which("true"))
    out = tmp_path / "pixels"
    out.write_bytes(b"")
    tasks = [Task(row, str(path)) for row, path in enumerate(sorted(pets.rglob("*.png")))]
    with pytest.raises(errors.CorruptDataError, match="a process that reads images died between"):
        list(decode_all(tasks, Wanted(), (3, 8, 10), out))


def test_an_error_of_the_supply_reaches_the_caller_and_ends_the_processes(
    pets, by_processes, tmp_path
):
    def tasks():
        for row, path in enumerate(sorted(pets.rglob("*.png"))[:7]):
            yield Task(row, str(path))
        raise errors.CorruptDataError("the archive ends here")

    (tmp_path / "pixels").write_bytes(b"")
    with pytest.raises(errors.CorruptDataError, match="the archive ends here"):
        list(decode_all(tasks(), Wanted(), (3, 8, 10), tmp_path / "pixels"))


# --- The cache -----------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch):
    """What was read since: names of the functions."""
    calls = []
    for name in ("ingest", "contents"):
        original = getattr(ingest_module, name)

        def spy(*args, _name=name, _original=original):
            calls.append(_name)
            return _original(*args)

        monkeypatch.setattr(cache_module, name, spy)
    return calls


def test_a_second_load_reads_nothing(pets, read):
    first = load("pets")
    assert read == ["ingest"]
    again, test = load("pets"), load("pets", "test")
    assert read == ["ingest"]
    assert torch.equal(first.images, again.images)
    assert first.fingerprint == again.fingerprint != test.fingerprint
    load("pets", prepare=Preparation(split="0.4"))
    assert read == ["ingest"], "another share is another number of the same rows"
    load("pets", prepare=Preparation(image_size=(16, 16)))
    assert read == ["ingest", "ingest"]


def test_files_that_were_touched_or_copied_are_compared_not_decoded(pets, read):
    first = load("pets")
    (pets / "cat" / "10.png").touch()
    assert torch.equal(load("pets").images, first.images)
    assert read == ["ingest", "contents"]
    shutil.copytree(pets, "copy")
    assert load("copy").fingerprint == first.fingerprint
    assert read == ["ingest", "contents", "contents"]


def test_a_change_of_content_is_noticed_even_with_size_and_time_kept(tmp_path, read):
    for number in range(4):
        image = picture(number)
        file = tmp_path / "bmp" / f"{number}.bmp"
        file.parent.mkdir(exist_ok=True)
        image.save(file)
    first = load("bmp", prepare=WHOLE)
    before = file.stat()
    picture(77).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    second = load("bmp", prepare=WHOLE)
    assert not torch.equal(first.images, second.images)
    assert first.fingerprint != second.fingerprint
    assert read == ["ingest", "contents", "ingest"]


def test_files_that_changed_just_now_are_looked_at_again(pets, read, monkeypatch):
    monkeypatch.setattr("convvae.data.cache.store._SETTLED", 60.0)
    load("pets")
    load("pets")
    assert read == ["ingest", "contents"]


def test_the_cache_is_mapped_and_not_written_through(pets, own_cache):
    found = load("pets")
    file = next(own_cache.glob("*/pixels"))
    before = file.read_bytes()
    assert len(before) == 20 * 3 * 8 * 10
    found.images.zero_()
    assert file.read_bytes() == before
    assert load("pets").images.any()


def test_a_damaged_entry_is_made_again(pets, own_cache, read):
    first = load("pets").images.clone()
    file = next(own_cache.glob("*/pixels"))
    file.write_bytes(file.read_bytes()[:-1])
    assert torch.equal(load("pets").images, first)
    assert read == ["ingest", "ingest"]


def test_a_failure_leaves_nothing_and_old_remains_are_swept(pets, own_cache):
    old = own_cache / "making-old"
    old.mkdir(parents=True)
    os.utime(old, (time.time() - 1e6,) * 2)
    (own_cache / "making-new").mkdir()
    write(pets / "cat" / "99.png", picture(99, (9, 9)))
    with pytest.raises(errors.ImageSizeError):
        load("pets")
    assert [path.name for path in own_cache.iterdir()] == ["making-new"]


def test_a_cache_that_cannot_be_written(pets, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVVAE_CACHE", str(write(tmp_path / "file", b"")))
    with pytest.raises(errors.OutputError, match="CONVVAE_CACHE"):
        load("pets")


def test_fingerprints_of_sets_in_memory_change_with_the_pixels():
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    one = fingerprint(ImageSet(images, None, "a", "train"))
    assert one == fingerprint(ImageSet(images.clone(), None, "b", "test"))
    images[1, 0, 2, 2] = 1
    assert fingerprint(ImageSet(images, None, "a", "train")) != one


# --- Archives ------------------------------------------------------------------------------------


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


# --- Tables --------------------------------------------------------------------------------------


def table(rows, name="list.csv"):
    with Path(name).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return name


def test_a_table_gives_paths_labels_and_parts(pets):
    rows = [
        {"path": f"pets/{name}", "label": name[:3], "split": "test" if "1" in name else "train"}
        for name in (p.relative_to(pets).as_posix() for p in sorted(pets.rglob("*.png")))
    ]
    found = load(table(rows), prepare=WHOLE)
    assert list(found.names) == [row["path"] for row in rows]
    assert found.classes == ("cat", "dog")
    test = load("list.csv", "test")
    assert set(test.names) == {row["path"] for row in rows if row["split"] == "test"}
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), "list.parquet")
    parquet = load("list.parquet", prepare=WHOLE)
    assert list(parquet.names) == list(found.names)
    assert torch.equal(parquet.labels, found.labels)


def test_whole_numbers_as_labels_stay_what_they_are(pets):
    rows = [
        {"file_name": "pets/dog/19.png", "label": "7"},
        {"file_name": "pets/cat/18.png", "label": "3"},
    ]
    found = load(table(rows), prepare=WHOLE)
    assert found.labels.tolist() == [7, 3]
    assert found.classes is None


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ([{"image": "x"}], errors.CorruptDataError, "has the columns image; one named path or"),
        ([{"path": "no.png"}], errors.UnknownDataError, "row 1 lists no.png, but"),
        ([{"path": ""}], errors.CorruptDataError, "row 1 has no path"),
        ([{"path": "x", "split": "val"}], errors.CorruptDataError, "row 1 has split 'val'"),
    ],
)
def test_a_table_that_lists_no_images(rows, error, says):
    with pytest.raises(error, match=says):
        load(table(rows))


# --- Arrays --------------------------------------------------------------------------------------

VALUES = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)


def expected(channels_last):
    return torch.tensor(channels_last).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("array", "result"),
    [
        (VALUES, VALUES),
        (VALUES.transpose(0, 3, 1, 2), VALUES),
        (VALUES[..., 0], VALUES[..., :1]),
        (VALUES > 99, (VALUES > 99) * np.uint8(255)),
        (VALUES.astype(np.uint16) * 256 + 7, VALUES),
        ((VALUES / 255).astype(np.float32), VALUES),
        (VALUES / 255, VALUES),
    ],
)
def test_arrays_of_every_kind(array, result, monkeypatch):
    monkeypatch.setattr("convvae.data.own.arrays._CHUNK_BYTES", 1000)
    array = np.ascontiguousarray(array)
    np.save("a.npy", array)
    found = load("a.npy", prepare=WHOLE)
    assert torch.equal(found.images, expected(result))
    assert list(found.names) == [str(n) for n in range(6)]
    for keys in (("images", "labels"), ("x", "y")):
        np.savez_compressed("a.npz", **dict(zip(keys, (array, np.arange(6) + 4), strict=True)))
        packed = load("a.npz", prepare=WHOLE)
        assert torch.equal(packed.images, found.images)
        assert packed.labels.tolist() == [4, 5, 6, 7, 8, 9]


def test_arrays_are_resized_and_divided_like_files():
    np.save("a.npy", VALUES)
    found = load("a.npy", prepare=Preparation(image_size=(16, 16), channels=1, split="0.5"))
    assert found.images.shape[1:] == (1, 16, 16)
    test = load("a.npy", "test", prepare=Preparation(image_size=(16, 16), channels=1, split="0.5"))
    assert sorted([*found.names, *test.names]) == [str(n) for n in range(6)]


def test_an_idx_file_and_the_labels_beside_it(capsys):
    def idx(array):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        return head + array.tobytes()

    Path("my-images-idx3-ubyte").write_bytes(idx(VALUES[..., 0]))
    assert load("my-images-idx3-ubyte", prepare=WHOLE).labels is None
    Path("my-labels-idx1-ubyte").write_bytes(idx(np.arange(6, dtype=np.uint8)))
    Path("my-images-idx3-ubyte").touch()
    shutil.rmtree("cache")
    found = load("my-images-idx3-ubyte", prepare=WHOLE)
    assert torch.equal(found.images, expected(VALUES[..., :1]))
    assert found.labels.tolist() == list(range(6))
    assert "labels from my-labels-idx1-ubyte" in capsys.readouterr().err


class Trap:
    def __reduce__(self):
        return (Path("trapped").touch, ())


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_pickled_objects_are_refused_and_never_run(name):
    array = np.array([Trap(), Trap()], dtype=object)
    if name == "a.npy":
        np.save(name, array, allow_pickle=True)
    else:
        np.savez(name, images=array)
    with pytest.raises(errors.CorruptDataError, match="holds pickled Python objects"):
        load(name)
    assert not Path("trapped").exists()


def with_nan():
    values = (VALUES / 255).astype(np.float32)
    values[4, 2, 3, 1] = np.nan
    return values


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (VALUES.astype(np.int64), r"dtype int64; expected uint8, uint16, bool, or floats"),
        (VALUES.astype(np.float32), r"floats from 0 to 255; expected \[0, 1\]"),
        (with_nan(), "image 4 holds NaN or infinity"),
        (VALUES[0, 0], r"shape \[9, 3\]; expected \[N, H, W\]"),
        (np.zeros((2, 8, 8, 7), np.uint8), r"shape \[2, 8, 8, 7\]; expected"),
        (np.zeros((2, 3, 8, 3), np.uint8), "both axis 1 and axis 3 could be the channels"),
        (np.zeros((0, 8, 8), np.uint8), r"shape \[0, 8, 8\]"),
        (np.asfortranarray(VALUES), "Fortran's order"),
    ],
)
def test_arrays_that_are_no_images(array, says):
    np.save("a.npy", array)
    with pytest.raises(errors.CorruptDataError, match=says):
        load("a.npy")


def test_archives_of_arrays_that_are_no_images():
    np.savez("a.npz", pictures=VALUES)
    with pytest.raises(errors.CorruptDataError, match="holds pictures; expected an array named"):
        load("a.npz")
    np.savez("a.npz", images=VALUES, labels=np.arange(5))
    with pytest.raises(errors.CorruptDataError, match=r"6 images but labels of shape \[5\]"):
        load("a.npz")
    np.savez("a.npz", images=VALUES, labels=np.arange(6) / 2)
    with pytest.raises(errors.CorruptDataError, match=r"labels in .* has dtype float64"):
        load("a.npz")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_truncated_arrays(name):
    np.save("a.npy", VALUES)
    np.savez("a.npz", images=VALUES)
    file = Path(name)
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(errors.CorruptDataError, match=rf"{name}.* is (truncated|damaged)"):
        load(name)
