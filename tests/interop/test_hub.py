import json
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from convvae.errors import DownloadError, MissingExtraError, ModelFileError, OutputError
from convvae.interop.hub import from_pretrained, push_to_hub, save_pretrained
from convvae.model.checkpoint import load_model


def same(a, b):
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.state_dict().items())


def test_a_model_is_saved_and_opened_again(finished_run, tmp_path):
    save_pretrained(finished_run.path, tmp_path / "out")
    vae, metadata = from_pretrained(tmp_path / "out")
    original, known = load_model(finished_run.path)
    assert metadata == known
    assert same(vae, original)
    assert not vae.training
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model"]["latent_dims"] == 2


def test_the_card_is_one_that_the_hub_can_read(finished_run, tmp_path):
    save_pretrained(finished_run.path, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "convvae"
    assert "variational-autoencoder" in card.data.tags
    _, metadata = load_model(finished_run.path)
    assert f"| bound | {metadata.bound:.2f} nats per image (test images) |" in card.text
    assert "| images | 8x8, 1 channel |" in card.text
    assert "None" not in card.text
    assert "gaussian of variance 0.5" in card.text
    for name in ("samples.png", "reconstructions-test.png"):
        assert f"({name})" in card.text
        source, copy = (folder / name for folder in (finished_run.pictures, tmp_path / "out"))
        assert source.read_bytes() == copy.read_bytes()
    save_pretrained("mlx-cvae", tmp_path / "other")
    assert ".png" not in (tmp_path / "other" / "README.md").read_text()


def test_the_python_of_the_card_runs(finished_run, hub, monkeypatch):
    push_to_hub(finished_run.path, "me/digits")
    code = (hub / "me/digits/README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    assert names["x"].shape == (16, 1, 8, 8)


def test_a_model_is_uploaded_in_one_commit_and_fetched_again(finished_run, hub):
    address = push_to_hub(finished_run.path, "me/digits", private=True)
    assert address == "https://huggingface.co/me/digits"
    assert (hub / "me/digits/private").read_text() == "True"
    assert {path.name for path in (hub / "me/digits").iterdir()} == {
        *("private", "model.safetensors", "config.json", "README.md"),
        *("samples.png", "reconstructions-test.png"),
    }
    vae, _ = from_pretrained("me/digits", revision="main")
    assert same(vae, load_model(finished_run.path)[0])


def test_what_fails_is_one_line(finished_run, hub, tmp_path):
    with pytest.raises(
        DownloadError, match=r"cannot fetch model\.safetensors of me/nothing"
    ) as found:
        from_pretrained("me/nothing")
    assert "\n" not in str(found.value)
    with pytest.raises(OutputError, match=r"cannot upload to me/x.*: Bad token; check"):
        push_to_hub(finished_run.path, "me/x", token="wrong")
    with pytest.raises(ModelFileError, match="no model"):
        push_to_hub("no-such-model", "me/x")
    with pytest.raises(ModelFileError, match="no model"):
        from_pretrained(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        save_pretrained(finished_run.path, tmp_path / "file")


def test_what_was_fetched_is_never_run(hub):
    (hub / "me/bad").mkdir(parents=True)
    (hub / "me/bad/model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelFileError, match="not a safetensors file"):
        from_pretrained("me/bad")


def test_without_the_library_a_folder_still_opens(finished_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    save_pretrained(finished_run.path, tmp_path / "out")
    assert from_pretrained(tmp_path / "out")[1].data == "digits"
    with pytest.raises(MissingExtraError, match=r"convvae\[hub\]"):
        from_pretrained("me/digits")
    with pytest.raises(MissingExtraError, match="the Hugging Face Hub needs"):
        push_to_hub(finished_run.path, "me/digits")
    assert not Path("me").exists()
