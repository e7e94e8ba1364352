"""Folders of one's own: what is in them, how they are divided, cached, and what is refused."""

import fcntl
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from own_pictures import WHOLE, picture, pixels, write

from convvae import errors
from convvae.data import ImageSet, Preparation, canonical, fingerprint, load, short_name, undivided
from convvae.data.cache import ingest as ingest_module
from convvae.data.cache import store as cache_module
from convvae.data.cache.pool import Task, decode_all
from convvae.data.decode import Wanted

pytestmark = pytest.mark.usefixtures("own_cache")


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
    assert "by content, split 0.1; " in err


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


def test_processes_do_not_import_the_program_that_asks_for_images(pets, own_cache, tmp_path):
    """The pools of Python do, and break where it has no `if __name__ == "__main__"`."""
    program = tmp_path / "program.py"
    program.write_text(
        "from convvae.data import load\n"
        "from convvae.data.cache import pool\n"
        "pool.MOST_FILES_IN_PROCESS = 2\n"
        f"print(len(load({str(pets)!r}, 'train')) + len(load({str(pets)!r}, 'test')))\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "20\n"), done.stderr


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
    dead, alive = own_cache / ".convvae-dead.tmp", own_cache / ".convvae-alive.tmp"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
        (folder / "pixels").write_bytes(b"half")
    os.utime(alive, (time.time() - 1e6,) * 2)
    write(pets / "cat" / "99.png", picture(99, (9, 9)))
    held = os.open(alive, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(errors.ImageSizeError):
            load("pets")
    finally:
        os.close(held)
    assert [path.name for path in own_cache.iterdir()] == [".convvae-alive.tmp"]


@pytest.mark.parametrize("processes", [False, True])
def test_a_full_disk_while_images_are_decoded(processes, pets, own_cache, monkeypatch):
    if processes:
        monkeypatch.setattr("convvae.data.cache.pool.MOST_FILES_IN_PROCESS", 3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(errors.DiskFullError, match=r"cannot write .*images: File too large; "):
            load("pets")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(own_cache.iterdir()) == []
    assert load("pets").images.any(dim=(1, 2, 3)).all()


def test_an_image_of_which_half_was_written_is_finished(pets, own_cache, monkeypatch):
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, part, at: whole(handle, part[:100], at))
    found = load("pets").images.clone()
    monkeypatch.undo()
    assert found[:, -1].any(dim=(1, 2)).all()


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


def test_a_single_file_is_a_set_of_one_image(pets):
    found = load("pets/dog/19.png", "test", prepare=WHOLE)
    assert found.images.shape == (1, 3, 8, 10)
    assert torch.equal(found.images[0], pixels(pets / "dog" / "19.png"))
    assert list(found.names) == ["19.png"]
    assert found.labels is None
    Path("broken.png").write_bytes(b"no image")
    with pytest.raises(errors.CorruptDataError, match="none of the 1 images of broken"):
        load("broken.png", prepare=WHOLE)
