import io
import json
import os
import pickle
import random
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from foreign import Notebook, TorchVAE, trained
from models import made

from convvae.cli.main import main
from convvae.errors import ImageSizeError, ModelFileError, ModelMismatchError
from convvae.interop.weights import export_npz, export_state_dict, export_torch_vae, import_weights
from convvae.model.checkpoint import load_metadata, load_model, save_model

TOLERANCE = 1e-4


def equal(vae, other, but=()):
    """Whether two models are the same to the bit."""
    theirs = other.state_dict()
    return all(
        torch.equal(value, theirs[name])
        for name, value in vae.state_dict().items()
        if not name.endswith(tuple(but) or ("?",))
    )


# The MLX tutorial.


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors"])
@pytest.mark.parametrize(("channels", "grid"), [(1, (2, 2)), (3, (2, 3))])
def test_weights_of_mlx_itself_give_the_images_of_mlx(channels, grid, name, tmp_path):
    import mlx_network

    theirs = mlx_network.trained(3, channels, grid)
    theirs.save_weights(str(tmp_path / name))
    size = (8 * grid[0], 8 * grid[1])
    vae, metadata, _ = import_weights(tmp_path / name, image_size=size)
    assert metadata.source == f"the MLX tutorial: {name}"
    assert (metadata.model.network, metadata.model.image_size) == ("upsample", size)
    z, x = 3 * torch.randn(5, 3), torch.rand(5, channels, *size)
    with torch.no_grad():
        images, q = vae.decode(z).mean.numpy(), vae.encode(x)
    assert images.std() > 0.01
    np.testing.assert_allclose(images, mlx_network.decode(theirs, z.numpy()), atol=TOLERANCE)
    mu, logvar = mlx_network.encode(theirs, x.numpy())
    np.testing.assert_allclose(q.mu, mu, atol=TOLERANCE)
    np.testing.assert_allclose(q.logvar, logvar, atol=TOLERANCE)


def test_weights_of_mlx_in_half_precision_are_read_as_they_are(tmp_path):
    import mlx.core as mx
    import mlx_network

    theirs = mlx_network.trained(3, 1, (2, 2))
    theirs.set_dtype(mx.bfloat16)
    theirs.save_weights(str(tmp_path / "half.safetensors"))
    theirs.set_dtype(mx.float32)
    vae = import_weights(tmp_path / "half.safetensors").vae
    z = torch.randn(5, 3)
    with torch.no_grad():
        images = vae.decode(z).mean.numpy()
    np.testing.assert_allclose(images, mlx_network.decode(theirs, z.numpy()), atol=TOLERANCE)


def test_our_weights_load_into_mlx_and_give_our_images(tmp_path):
    import mlx_network

    vae = made("upsample")
    export_npz(vae, tmp_path / "ours.npz")
    theirs = mlx_network.CVAE(3, 3, grid=(2, 3))
    theirs.load_weights(str(tmp_path / "ours.npz"), strict=True)
    theirs.eval()
    z, x = torch.randn(5, 3), torch.rand(5, 3, 16, 24)
    with torch.no_grad():
        images, mu = vae.decode(z).mean.numpy(), vae.encode(x).mean.numpy()
    np.testing.assert_allclose(mlx_network.decode(theirs, z.numpy()), images, atol=TOLERANCE)
    np.testing.assert_allclose(mlx_network.encode(theirs, x.numpy())[0], mu, atol=TOLERANCE)


def test_out_and_in_again_is_the_same_model_to_the_bit(tmp_path):
    counter = ("num_batches_tracked",)
    for network, export, but in (
        ("upsample", export_npz, counter),
        ("transposed", export_torch_vae, ()),
        ("pooled", export_state_dict, ()),
    ):
        vae = made(network)
        export(vae, tmp_path / "file")
        again = import_weights(tmp_path / "file", image_size=(16, 24)).vae
        assert equal(vae, again, but), network
        assert again.config.network == network


# torch-vae.


def test_weights_of_torch_vae_give_its_images_and_ours_load_into_it(tmp_path):
    theirs = trained(
        TorchVAE(3), lambda net, x: (net.decoder(net.encoder(x)[0]) - x).square().sum(),
        torch.rand(6, 1, 64, 64),
    )  # fmt: skip
    torch.save(theirs.state_dict(), tmp_path / "vae.pth")
    vae, metadata, notes = import_weights(tmp_path / "vae.pth")
    assert (metadata.model.network, metadata.model.image_size) == ("transposed", (64, 64))
    assert any("encoder.shortcut2.weight" in note for note in notes)
    z, x = torch.randn(5, 3), torch.rand(5, 1, 64, 64)
    with torch.no_grad():
        assert (theirs.decoder(z) - vae.decode(z).mean).abs().max() < TOLERANCE
        for own, other in zip(theirs.encoder(x), vae.encoder(x), strict=True):
            assert (own - other).abs().max() < TOLERANCE

    ours = made("transposed", image_size=(64, 64), channels=1)
    export_torch_vae(ours, tmp_path / "ours.pth")
    theirs.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True))
    with torch.no_grad():
        assert (theirs.decoder(z) - ours.decode(z).mean).abs().max() < TOLERANCE
        assert (theirs.encoder(x)[0] - ours.encode(x).mean).abs().max() < TOLERANCE


# The notebook.


@pytest.mark.parametrize(
    ("heads", "mean", "said"),
    [
        (("mean", "log_variance"), "mean", False),
        (("logvar_head", "mu_head"), "mu_head", False),
        (("first", "second"), "first", True),
    ],
)
def test_weights_of_the_notebook_give_its_images(heads, mean, said, tmp_path):
    def loss(net, x):
        mu, logvar = net.encode(x)
        return (net.generator(mu).sigmoid() - x).square().sum() + logvar.square().sum()

    theirs = trained(Notebook(heads=heads, mean_head=mean), loss, torch.rand(8, 1, 28, 28))
    torch.save(theirs.state_dict(), tmp_path / "vae.pth")
    vae, metadata, notes = import_weights(tmp_path / "vae.pth")
    assert (metadata.model.network, metadata.model.likelihood) == ("pooled", "bernoulli")
    assert metadata.model.image_size == (28, 28)
    assert any("taken to be the second" in note for note in notes) is said
    z, x = torch.randn(5, 2), torch.rand(5, 1, 28, 28)
    with torch.no_grad():
        assert (theirs.generator(z).sigmoid() - vae.decode(z).mean).abs().max() < TOLERANCE
        for own, other in zip(theirs.encode(x), vae.encoder(x), strict=True):
            assert (own - other).abs().max() < TOLERANCE


def test_our_weights_load_into_the_notebook_part_by_part(tmp_path):
    ours = made("pooled", image_size=(28, 28), channels=1, latent_dims=2, likelihood="bernoulli")
    export_state_dict(ours, tmp_path / "ours.pth")
    state = torch.load(tmp_path / "ours.pth", weights_only=True)
    theirs = Notebook().eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    z = torch.randn(5, 2)
    with torch.no_grad():
        assert (theirs.generator(z).sigmoid() - ours.decode(z).mean).abs().max() < TOLERANCE


# What is refused, in one line that names it.


class Bomb:
    """A pickle that leaves a mark when it is executed."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def disguises(mark):
    """Pickles that run code when they are loaded, in every disguise."""
    bare = pickle.dumps(Bomb(mark))
    saved, old, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"encoder.conv1.weight": Bomb(mark)}, saved)
    torch.save(Bomb(mark), old, _use_new_zipfile_serialization=False)
    array = np.empty(1, dtype=object)
    array[0] = Bomb(mark)
    np.savez(archive, **{"encoder.conv1.weight": array})
    alone = io.BytesIO()
    np.save(alone, array, allow_pickle=True)
    return [bare, saved.getvalue(), old.getvalue(), archive.getvalue(), alone.getvalue()]


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("name", ["weights.pth", "weights.npz"])
def test_a_pickle_disguised_as_weights_is_never_executed(kind, name, tmp_path, capsys):
    mark = tmp_path / "executed"
    path = tmp_path / name
    path.write_bytes(disguises(mark)[kind])
    assert main(["import", str(path), "--out", str(tmp_path / "m.safetensors")]) == 10
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(path) in lines[0]
    assert not mark.exists()
    assert not (tmp_path / "m.safetensors").exists()


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "weights.npz"
    export_npz(made("upsample", image_size=(16, 16)), path)
    return path


def changed(path, **changes):
    """Write the archive again with some arrays changed, or left out where the change is None."""
    with np.load(path) as old:
        arrays = {name: old[name] for name in old.files}
    for name, value in changes.items():
        arrays[name.replace("__", ".")] = value
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder__bn2__bias": None}, r"expected encoder.bn2.bias of shape \(4,\), found none"),
        ({"encoder__conv1__weight": None}, "no encoder.conv1.weight in it"),
        (
            {"decoder__upconv1__conv__weight": np.zeros((4, 8, 3, 3))},
            r"decoder.upconv1.conv.weight: expected shape \(4, 3, 3, 8\), found \(4, 8, 3, 3\)",
        ),
        ({"encoder__conv1__weight": np.zeros(3)}, "expected 4 axes"),
        ({"encoder__proj_mu__weight": np.zeros((3, 33))}, "33 features are not whole cells of 8"),
        ({"encoder__conv3__weight": np.zeros((6, 3, 3, 4))}, "features|divisible"),
        ({"encoder__extra": np.zeros(3)}, "expected no encoder.extra"),
        ({"encoder__bn1__bias": np.array([1, np.nan])}, "encoder.bn1.bias holds numbers that are"),
        ({"encoder__bn1__bias": np.array([1, 2])}, "encoder.bn1.bias: expected floats, found int"),
        ({"encoder__bn1__bias": np.array(["a"])}, "expected floats, found <U1"),
    ],
)
def test_wrong_names_and_shapes_say_what_was_expected_and_found(archive, changes, said):
    changed(archive, **changes)
    with pytest.raises(ModelFileError, match=said):
        import_weights(archive)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("form", ["npz", "pth", "old", "safetensors"])
def test_a_truncated_file_is_one_line(share, form, archive, tmp_path):
    path = archive
    if form != "npz":
        path = tmp_path / "weights.pth"
        state = made("transposed").state_dict()
        torch.save(state, path, _use_new_zipfile_serialization=form == "pth")
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError, match=str(path)):
        import_weights(path)


def test_damage_inside_an_archive_is_noticed(archive):
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ModelFileError, match="truncated"):
        import_weights(archive)


def test_no_damage_whatever_is_more_than_one_line(tmp_path):
    state = {"encoder.conv1.weight": torch.zeros(2, 1, 3, 3), "n": torch.tensor(3)}
    files = [io.BytesIO() for _ in range(5)]
    torch.save(state, files[0])
    torch.save(state, files[1], _use_new_zipfile_serialization=False)
    np.savez(files[2], a=np.ones((3, 4)))
    np.savez_compressed(files[3], a=np.ones((3, 4)))
    files[4].write(safetensors.torch.save(state))
    chance, path = random.Random(0), tmp_path / "damaged"
    for _ in range(300):
        content = bytearray(chance.choice(files).getvalue())
        for _ in range(chance.choice([1, 2, 5, 20])):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"\A.*\Z"):
            import_weights(path)


def test_an_archive_that_expands_without_bound_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **{"encoder.conv1.weight": np.zeros(10_000_000, np.float32)})
    with pytest.raises(ModelFileError, match="would expand to 40 MB"):
        import_weights(path)


def test_a_header_that_promises_more_than_there_is(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999,), }".ljust(117)
    array = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header + b"\n" + bytes(64)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("encoder.conv1.weight.npy", array)
    with pytest.raises(ModelFileError, match="expected 3999999999996 bytes"):
        import_weights(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": {"a": torch.zeros(2)}, "epoch": 3}, "found a dict with the keys model, epoch"),
        ([torch.zeros(2)], "expected a state dict, found a list"),
        ({"encoder.conv1.\nweight": torch.zeros(2)}, "is not the name of a weight"),
        ({"a": torch.zeros(2)}, "expected the 55 tensors of the 2-D notebook, found 1"),
        ({"encoder.proj_mu.weight": torch.zeros(2)}, "no encoder.conv1.weight in it"),
    ],
)
def test_a_pytorch_file_of_something_else(content, said, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match=said):
        import_weights(tmp_path / "a.pth")


def test_a_state_dict_of_ours_without_its_settings_is_named_as_such(tmp_path):
    export_state_dict(made("residual"), tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match="use the model file that it was exported from"):
        import_weights(tmp_path / "a.pth")


def test_safetensors_of_torch_vae_are_read_and_others_say_what_they_are(tmp_path):
    path = tmp_path / "weights.safetensors"
    vae = made("transposed")
    export_torch_vae(vae, tmp_path / "weights.pth")
    state = torch.load(tmp_path / "weights.pth", weights_only=True)
    safetensors.torch.save_file(state, path)
    again = import_weights(path, image_size=(16, 24))
    assert equal(vae, again.vae)
    assert again.metadata.source == "torch-vae: weights.safetensors"
    safetensors.torch.save_file(made("pooled").state_dict(), path)
    with pytest.raises(ModelFileError, match="by their order, which safetensors do not keep"):
        import_weights(path)
    for network in ("pooled", "upsample"):
        save_model(path, made(network), again.metadata)
        with pytest.raises(ModelFileError, match="is a model file of convvae already"):
            import_weights(path)


def test_other_files_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(ModelFileError, match="neither arrays"):
        import_weights(tmp_path / "a.zip")
    with pytest.raises(ModelFileError, match="cannot read"):
        import_weights(tmp_path / "nothing.npz")
    with pytest.raises(ModelFileError, match="cannot read"):
        import_weights(tmp_path)


def test_the_image_size_is_told_or_taken_to_be_square(tmp_path):
    export_npz(made("upsample", image_size=(24, 24)), tmp_path / "square.npz")
    export_npz(made("upsample", image_size=(16, 24)), tmp_path / "oblong.npz")
    _, metadata, notes = import_weights(tmp_path / "square.npz")
    assert metadata.model.image_size == (24, 24)
    assert "9 cells of features: images taken to be 24x24" in notes[0]
    with pytest.raises(ModelFileError, match=r"6 cells.*8x48, 16x24, 24x16, 48x8"):
        import_weights(tmp_path / "oblong.npz")
    with pytest.raises(ImageSizeError, match="the weights have 6"):
        import_weights(tmp_path / "oblong.npz", image_size=(32, 32))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"network": "residual"}, "whose network is upsample; this model's is residual"),
        ({"network": "upsample", "posterior": "full"}, "posterior is diagonal"),
        ({"network": "upsample", "prior": "mixture"}, "prior is normal"),
        ({"network": "upsample", "likelihood": "discretized-logistic"}, "likelihood is gaussian"),
        ({"network": "upsample", "image_size": (12, 16)}, "sides that 8 divides"),
    ],
)
def test_a_model_that_a_format_cannot_hold_is_refused(settings, said, tmp_path):
    with pytest.raises(ModelMismatchError, match=said):
        export_npz(made(**settings), tmp_path / "a.npz")
    assert not any(tmp_path.iterdir())


# The commands.


def test_import_and_export_say_what_they_did_and_what_is_lost(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "mlx-cvae", "--format", "npz", "--out", "w.npz"]) == 0
    out = capsys.readouterr().out
    assert "wrote w.npz: 0.61 MB" in out
    assert "not in the file: image size, likelihood" in out
    words = ["import", "w.npz", "--data", "mnist", "--likelihood", "gaussian", "--out"]
    assert main([*words, "again.safetensors"]) == 0
    out = capsys.readouterr().out
    assert "network upsample, 8 latents, 64 filters, 64x64x1, from the MLX tutorial: w.npz" in out
    assert "images taken to be 64x64" in out
    assert "likelihood taken" not in out
    vae, metadata = load_model("again.safetensors")
    assert equal(load_model("mlx-cvae")[0], vae, ("num_batches_tracked",))
    assert (metadata.data, metadata.bound, metadata.source) == (
        "mnist",
        None,
        "the MLX tutorial: w.npz",
    )
    assert main(["info", "again.safetensors"]) == 0
    assert "the MLX tutorial: w.npz" in capsys.readouterr().out


def test_a_model_file_needs_its_name(archive, tmp_path, capsys):
    assert main(["import", str(archive), "--out", str(tmp_path / "m.npz")]) == 12
    assert "NAME.safetensors" in capsys.readouterr().err
    assert main(["export", "mlx-cvae", "--format", "npz", "--out", str(tmp_path)]) == 12
    assert "not a file" in capsys.readouterr().err
    assert main(["export", "mlx-cvae", "--format", "onnx", "--out", str(tmp_path / "a.onnx")]) == 12
    assert "name a folder" in capsys.readouterr().err


def test_an_imported_model_without_data_says_what_to_name(archive, tmp_path, capsys):
    model = str(tmp_path / "m.safetensors")
    assert main(["import", str(archive), "--out", model]) == 0
    assert main(["generate", model, "--outfile", str(tmp_path / "a.png")]) == 0
    capsys.readouterr()
    assert main(["evaluate", model]) == 4
    assert "unknown" in capsys.readouterr().err


def test_facts_of_an_import_are_kept_by_the_file(archive, tmp_path):
    vae, metadata, _ = import_weights(archive, likelihood="laplace", variance=0.1)
    save_model(tmp_path / "m.safetensors", vae, metadata)
    assert load_metadata(tmp_path / "m.safetensors") == metadata
    assert (metadata.model.likelihood, metadata.model.variance) == ("laplace", 0.1)
    assert json.loads(metadata.model_dump_json())["bound"] is None
