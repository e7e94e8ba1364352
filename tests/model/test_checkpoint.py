import json
import re
import resource
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from convvae.config import ModelConfig
from convvae.errors import ModelFileError, OutputError, RunExistsError
from convvae.model import checkpoint
from convvae.model.checkpoint import (
    MODEL_FORMAT,
    ModelMetadata,
    find_model,
    load_metadata,
    load_model,
    load_tensors,
    pretrained_models,
    save_model,
    save_tensors,
)
from convvae.model.objectives import elbo
from convvae.model.run_folder import RunFolder, claim_next
from convvae.model.vae import VAE


@pytest.fixture
def saved(tiny_model, tmp_path):
    vae = VAE(tiny_model)
    metadata = ModelMetadata(
        model=tiny_model, data="digits", epochs=3, images=300, bound=-1.5, versions={}
    )
    path = tmp_path / "model.safetensors"
    save_model(path, vae, metadata)
    return vae, metadata, path


def test_a_model_file_rebuilds_the_model(saved):
    vae, metadata, path = saved
    loaded, read = load_model(path)
    assert read == metadata == load_metadata(path)
    assert not loaded.training
    for name, value in vae.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_channels_last_weights_are_saved_as_they_read(saved, tmp_path):
    vae, metadata, _ = saved
    vae.to(memory_format=torch.channels_last)
    save_model(tmp_path / "b.safetensors", vae, metadata)
    loaded, _ = load_model(tmp_path / "b.safetensors")
    assert torch.equal(loaded.encoder.conv2.weight, vae.encoder.conv2.weight)


def test_a_truncated_file_is_refused(saved):
    path = saved[2]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match="damaged or not a safetensors file"):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x80\x04\x95 pickle"])
def test_what_is_not_safetensors_is_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=str(path)):
        load_model(path)


def test_foreign_safetensors_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(ModelFileError, match="not one of convvae's"):
        load_model(path)


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "new.safetensors"
    save_file(
        {"w": torch.zeros(2)}, path, metadata={"convvae": json.dumps({"format": MODEL_FORMAT + 1})}
    )
    with pytest.raises(ModelFileError, match="another version"):
        load_tensors(path)


def test_broken_metadata_is_refused(tmp_path):
    path = tmp_path / "new.safetensors"
    save_file({"w": torch.zeros(2)}, path, metadata={"convvae": "{"})
    with pytest.raises(ModelFileError, match="not JSON"):
        load_tensors(path)


def test_metadata_that_is_not_a_models_is_refused(tmp_path):
    save_tensors(tmp_path / "a.safetensors", {"w": torch.zeros(2)}, {"position": {}})
    with pytest.raises(ModelFileError, match="metadata is not a model's"):
        load_model(tmp_path / "a.safetensors")


def test_weights_that_do_not_fit_their_settings_are_refused(saved, tmp_path):
    vae, metadata, _ = saved
    state = vae.state_dict() | {"encoder.conv1.bias": torch.zeros(99)}
    save_tensors(tmp_path / "a.safetensors", state, metadata.model_dump(mode="json"))
    with pytest.raises(ModelFileError, match=r"do not fit.*encoder.conv1.bias"):
        load_model(tmp_path / "a.safetensors")


def test_a_description_of_a_huge_model_takes_no_memory(saved, tmp_path):
    vae, metadata, _ = saved
    huge = metadata.model_copy(
        update={
            "model": ModelConfig(
                image_size=(256, 256), channels=3, network="residual", max_filters=4096, depth=6
            )
        }
    )
    save_model(tmp_path / "a.safetensors", vae, huge)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelFileError, match=r"do not fit its settings: .* in the model that"):
        load_model(tmp_path / "a.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
    with pytest.raises(ValueError, match="needs 1 to 100 groups"):
        ModelConfig(image_size=(32, 32), channels=1, network="ladder", groups=(10**9,))


FULL = [
    {"network": "pooled", "likelihood": "bernoulli"},
    {"network": "transposed", "likelihood": "gaussian-optimal", "prior": "mixture"},
    {"network": "residual", "likelihood": "discretized-logistic-mixture", "prior": "vamp"},
    {"posterior": "flow", "prior": "flow"},
    {"posterior": "full", "likelihood": "gaussian-learned"},
    {"network": "ladder"},
    {"network": "ladder", "likelihood": "discretized-logistic"},
    {"likelihood": "laplace"},
]


@pytest.mark.parametrize("parts", FULL)
def test_the_shapes_of_every_part_are_known_beforehand(parts, tmp_path):
    model = ModelConfig(image_size=(16, 16), channels=1, max_filters=8, **parts)
    vae = VAE(model)
    metadata = ModelMetadata(model=model, data="digits", epochs=1, images=1, versions={})
    save_model(tmp_path / "a.safetensors", vae, metadata)
    loaded, _ = load_model(tmp_path / "a.safetensors")
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in vae.state_dict().items())
    # Nothing is left to what the memory held before.
    x, eps = torch.rand(2, 1, 16, 16), torch.randn(1, 2, vae.config.latent_dims)
    first, second = (elbo(each.eval(), x, eps) for each in (vae, loaded))
    assert torch.equal(first.log_px, second.log_px)
    assert torch.equal(first.kl, second.kl)


DAMAGE = {
    "a weight": lambda content: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
    "a zeroed block": lambda content: content[:-512] + bytes(512),
    "its bound": lambda content: content.replace(b"-1.5", b"-1.4"),
    "a checksum": lambda content: content.replace(b'crc32":"{', b'crc32":"['),
    "a name": lambda content: content.replace(b'"encoder.conv1.bias":', b'"encoder.conv1.bios":'),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_seen(what, saved):
    path = saved[2]
    content = path.read_bytes()
    damaged = DAMAGE[what](content)
    assert len(damaged) == len(content)
    assert damaged != content
    path.write_bytes(damaged)
    with pytest.raises(ModelFileError, match=re.escape(str(path))):
        load_model(path)


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch, replaced):
    """safetensors had the header of one, and mapped the other."""
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for place, size in ((path, 1000), (other, 1)):
        save_tensors(place, {"x": torch.full((size,), float(size))}, {})
    tried = []

    def opened(place, framework):
        tried.append(place)
        if len(tried) > 1:
            return safe_open(place, framework)
        if replaced:
            other.replace(path)
        raise RuntimeError("size <1> is smaller than the required mapping size <2>")

    monkeypatch.setattr(checkpoint, "safe_open", opened)
    if replaced:
        assert load_tensors(path)[0]["x"].tolist() == [1.0]
    else:
        with pytest.raises(ModelFileError, match=r"a\.safetensors: size <1>"):
            load_tensors(path)


def test_a_file_of_before_checksums_loads(saved, tmp_path):
    vae, metadata, path = saved
    plain = {name: value.contiguous() for name, value in vae.state_dict().items()}
    with safe_open(path, "pt") as file:
        text = file.metadata()["convvae"]
    save_file(plain, tmp_path / "old.safetensors", metadata={"convvae": text})
    assert load_metadata(tmp_path / "old.safetensors") == metadata


def test_every_type_of_tensor_has_a_checksum(tmp_path):
    tensors = {
        str(kind): torch.arange(6, dtype=torch.float64).to(kind).reshape(2, 3)
        for kind in (torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool)
    }
    tensors |= {"scalar": torch.tensor(2.0), "none": torch.zeros(0, 3)}
    save_tensors(tmp_path / "a.safetensors", tensors, {})
    read, _ = load_tensors(tmp_path / "a.safetensors")
    assert all(torch.equal(value, read[name]) for name, value in tensors.items())


def test_a_model_is_a_folder_a_file_or_a_name(saved):
    path = saved[2]
    assert find_model(path.parent) == find_model(path) == find_model(str(path)) == path


def test_an_unknown_model_names_what_there_is(tmp_path):
    with pytest.raises(ModelFileError, match="pretrained"):
        find_model("no-such-model")
    with pytest.raises(ModelFileError, match="run folder with a finished epoch"):
        find_model(tmp_path)


def test_a_run_folder_is_never_taken_twice(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.config.write_text("{}")
    with pytest.raises(RunExistsError, match=rf"already holds a run.*resume='{tmp_path}/run'"):
        RunFolder.create(tmp_path / "run")


def test_an_impossible_run_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        RunFolder.create(tmp_path / "file" / "run")


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(ModelFileError, match="no run to resume"):
        RunFolder.open(tmp_path)


def test_metrics_are_rewound_to_a_position(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    for images in (10, 20, 30):
        run.append_metrics({"event": "log", "epoch": images // 10, "images": images})
        run.append_metrics({"event": "epoch", "epoch": images // 10, "images": images})
    with run.metrics.open("a") as file:
        file.write('{"images": 4')
    run.rewind_metrics(epochs=1, images=20)
    assert [(row["event"], row["images"]) for row in run.read_metrics()] == [
        ("log", 10), ("epoch", 10), ("log", 20),
    ]  # fmt: skip


def test_default_folders_are_numbered(tmp_path):
    names = [claim_next("mnist", tmp_path / "runs").name for _ in range(3)]
    assert names == ["mnist", "mnist-2", "mnist-3"]


@pytest.mark.parametrize("name", pretrained_models())
def test_every_pretrained_model_loads_and_is_small(name):
    path = find_model(name)
    vae, metadata = load_model(name)
    assert path.stat().st_size < 8_000_000
    assert metadata.bound is not None
    run = RunFolder(path.parent)
    epochs = [row for row in run.read_metrics() if row["event"] == "epoch"]
    assert len(epochs) == metadata.epochs == run.read_config()["settings"]["epochs"]
    assert epochs[-1]["val_bound"] == pytest.approx(metadata.bound)
    assert vae.num_parameters() > 0


def test_a_copied_run_folder_is_still_a_model(finished_run, tmp_path):
    shutil.copytree(finished_run.path, tmp_path / "copy")
    assert load_metadata(tmp_path / "copy") == load_metadata(finished_run.path)
