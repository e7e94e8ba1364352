"""Commands that measure in shards: their output, merged, is that of one go; what they refuse."""

import json

import pytest
import torch
from safetensors.torch import load_file

from convvae import errors
from convvae.cli.main import main
from convvae.data import Preparation, stream
from convvae.evaluation import encode
from convvae.evaluation.shards import Measure, Shard, ShardFolder, cut
from convvae.model.vae import VAE


@pytest.fixture
def here(finished_run, tmp_path, monkeypatch, capsys):
    """A folder to work in, batches of 16 images, and a function that runs a command there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encode, "BATCH", 16)

    def run(*words, code=0):
        command, *rest = map(str, words)
        model = [] if command == "merge" else [finished_run.path, "digits"]
        assert main([command, *map(str, model), *rest, "--cpu"]) == code, capsys.readouterr().err
        said = capsys.readouterr()
        return said.err if code else said.out

    return run


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def numbers(folder):
    """Of every shard; the order of the words in its header is not the same every time."""
    return {
        path.name: {name: values.tolist() for name, values in load_file(path).items()}
        for path in folder.glob("*.safetensors")
    }


@pytest.mark.parametrize("name", ["one.npz", "one.parquet", "one.npy"])
def test_merged_encodings_are_the_file_of_one_go(here, tmp_path, name):
    here("encode", "--part", "all", "--limit", 420, "--out", name)
    said = here("encode", "--part", "all", "--limit", 420, "--shards", "s", "--shard-size", 100)
    assert said.endswith("all 5 shards are in s; their output: convvae merge s\n")
    here("merge", "s", "--out", f"merged-{name}")
    assert (tmp_path / name).read_bytes() == (tmp_path / f"merged-{name}").read_bytes()


def test_a_rerun_makes_what_is_missing_or_damaged(here, tmp_path):
    words = ("encode", "--limit", 100, "--shards", "s", "--shard-size", 32)
    here(*words)
    before, wanted = files(tmp_path / "s"), numbers(tmp_path / "s")
    assert len(before) == 1 + 4
    (tmp_path / "s" / "images-000001.safetensors").unlink()
    assert "1 of 4 shards are not in s yet" in here("merge", "s", "--out", "m.npz", code=3)
    damaged = tmp_path / "s" / "images-000002.safetensors"
    damaged.write_bytes(before[damaged.name][:-1] + b"?")
    kept = {name: (tmp_path / "s" / name).stat().st_mtime_ns for name in before if "0.s" in name}
    assert "images-000002.safetensors is damaged" in here(*words)
    assert numbers(tmp_path / "s") == wanted
    for name, when in kept.items():
        assert (tmp_path / "s" / name).stat().st_mtime_ns == when
    damaged.write_bytes(before["images-000000.safetensors"])
    assert "is not a shard of this manifest.json" in here("merge", "s", "--out", "m.npz", code=8)


@pytest.mark.parametrize("normal", [(), ("--normal", "digits", "--normal-part", "train")])
def test_merged_anomalies_are_those_of_one_go(here, tmp_path, normal):
    words = ("anomalies", "--limit", 60, "--samples", 3, "--abnormal", "3", *normal)
    if normal:
        words = (*words, "--normal-limit", 70)
    here(*words, "--outdir", "one")
    here(*words, "--shards", "s", "--shard-size", 16)
    here("merge", "s", "--out", "merged")
    assert files(tmp_path / "one") == files(tmp_path / "merged")


def test_a_merged_evaluation_is_that_of_one_go(here, tmp_path):
    words = ("evaluate", "--limit", 70, "--samples", 7)
    printed = here(*words, "--json", "one.json")
    here(*words, "--shards", "s", "--shard-size", 20)
    merged = here("merge", "s", "--out", "merged.json")
    assert merged.replace("merged.json", "one.json") == printed

    def near(found):
        if isinstance(found, dict):
            return {name: near(value) for name, value in found.items()}
        return pytest.approx(found, rel=1e-6) if isinstance(found, (float, list)) else found

    one, other = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "merged.json"))
    assert other == near(one)


def test_shards_of_something_else_are_refused(here, tmp_path):
    words = ("encode", "--limit", 40, "--shards", "s")
    here(*words)
    whole = files(tmp_path / "s")
    assert "settings.seed is 0 there and 1 here" in here(*words, "--seed", 1, code=3)
    assert "settings.limit is 40 there" in here(*words[:1], "--shards", "s", code=3)
    assert "command is encode there" in here("anomalies", *words[1:], code=3)
    assert files(tmp_path / "s") == whole
    edited = {**json.loads(whole["manifest.json"]), "command": "evaluate"}
    (tmp_path / "s" / "manifest.json").write_text(json.dumps(edited))
    assert "its checksum differs" in here("merge", "s", code=8)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    assert "is not empty" in here("encode", "--shards", "mine", code=12)
    assert "is no folder of shards" in here("merge", "mine", "--out", "m.npz", code=12)


def test_neither_what_is_there_nor_the_shards_are_replaced(here, tmp_path):
    here("evaluate", "--limit", 5, "--shards", "s")
    whole = files(tmp_path / "s")
    assert "would be replaced" in here(
        "merge", "s", "--out", "s/manifest.json", "--overwrite", code=12
    )
    assert files(tmp_path / "s") == whole
    (tmp_path / "my.json").write_text("mine")
    assert "my.json would be replaced; choose another place with --out" in here(
        "merge", "s", "--out", "my.json", code=12
    )
    here("merge", "s", "--out", "my.json", "--overwrite")
    assert json.loads((tmp_path / "my.json").read_text())["protocol"]["images"] == 5


def test_other_weights_or_images_are_refused(here, tmp_path):
    found = Measure([40], 16, lambda a, b: {"place": torch.arange(a, b)}, {"count": 40})
    manifest = {"format": 1, "model": "a", "images": {"fingerprint": "x"}}
    manifest |= {"shards": cut({"images": found}, 32)}
    folder = ShardFolder.begin(tmp_path / "s", manifest)
    assert folder.fill({"images": found}, place=1, places=2) == 1
    assert [shard.start for shard in folder.missing()] == [0]
    again = ShardFolder.begin(tmp_path / "s", manifest)
    assert again.fill({"images": found}) == 1
    assert again.all_numbers("images")["place"].tolist() == list(range(40))
    for other, says in (
        ({"model": "b"}, "model is a there and b here"),
        ({"images": {"fingerprint": "y"}}, "images.fingerprint is x there and y here"),
    ):
        with pytest.raises(errors.ConfigError, match=says):
            ShardFolder.begin(tmp_path / "s", {**manifest, **other})


def test_what_does_not_go_with_shards_is_refused(here):
    assert "--out does not go with --shards" in here(
        "encode", "--shards", "s", "--out", "x.npz", code=2
    )
    assert "--probe does not go" in here("evaluate", "--shards", "s", "--probe", code=2)
    assert "--overwrite does not go" in here("encode", "--shards", "s", "--overwrite", code=2)
    assert "name a file with --out, or a folder with --shards" in here("encode", code=2)
    here("encode", "--limit", 5, "--shards", "s")
    assert "name a file to write with --out" in here("merge", "s", code=2)


def test_shards_are_cut_where_batches_end():
    def of(counts, size):
        return [shard[1:3] for shard in cut({"i": Measure(counts, 16, dict, {})}, size)]

    assert of([40, 20], 32) == [(0, 32), (32, 40), (40, 60)]
    assert of([40], 40) == [(0, 32), (32, 40)]
    assert of([20], 3) == [(0, 16), (16, 20)]
    assert cut({"i": Measure([3], 16, dict, {})}, 9) == [Shard("i", 0, 3, "i-000000.safetensors")]


def test_a_part_of_black_and_white_images_is_that_of_all(tiny_model, mnist_dir):
    vae = VAE(tiny_model)
    for name in ("digits", "mnist"):
        size = Preparation(image_size=tiny_model.image_size)
        source = stream(name, "all", data_dir=mnist_dir, prepare=size)
        edge = source.counts[0]
        whole = torch.cat(list(encode.batches(vae, source, 3, 0, edge + 100)))
        for start, stop in ((0, 5), (edge - 3, edge + 2), (edge + 10, edge + 100)):
            part = torch.cat(list(encode.batches(vae, source, 3, start, stop)))
            assert torch.equal(part, whole[start:stop])


def test_shards_are_plain_safetensors(here, tmp_path):
    here("encode", "--limit", 20, "--shards", "s")
    found = load_file(tmp_path / "s" / "images-000000.safetensors")
    assert found.keys() == {"mu", "logvar", "bound", "kl", "squared_error"}
