import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from models import made

from convvae.anomalies.calibration import Calibration, judge
from convvae.anomalies.carried import Carried, CarriedTerms
from convvae.anomalies.heatmaps import PixelCalibration
from convvae.anomalies.scores import measure_images
from convvae.cli.main import main
from convvae.config import Condition, ModelConfig
from convvae.errors import MissingExtraError, ModelMismatchError
from convvae.interop import graphs, torch_export
from convvae.interop import onnx as onnx_module
from convvae.interop.torch_export import export_programs
from convvae.model.checkpoint import ModelMetadata, save_model
from convvae.model.vae import VAE
from convvae.parts import Network

TOLERANCE = 1e-4
SMALL = {"image_size": (12, 20), "max_filters": 4}


def facts_of(vae):
    return ModelMetadata(model=vae.config, data="digits", epochs=0, images=0, versions={})


def outputs(graph, x):
    with torch.no_grad():
        found = graph.module(x)
    return found if isinstance(found, tuple) else (found,)


def only(names, vae, monkeypatch):
    """Have some graphs of a model written alone: each takes seconds."""
    found = {name: graph for name, graph in graphs.graphs(vae).items() if name in names}
    for module in (onnx_module, torch_export):
        monkeypatch.setattr(module, "graphs", lambda *_: found)


def assert_agrees(path, graph):
    """An ONNX file passes the checker and computes what a graph does, at any batch."""
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path))
    assert [output.name for output in session.get_outputs()] == graph.outputs
    ((name, shape),) = graph.inputs.items()
    for batch in (1, 7, 256):
        x = torch.rand(batch, *shape)
        theirs = session.run(None, {name: x.numpy()})
        for their, our in zip(theirs, outputs(graph, x), strict=True):
            assert our.std() > 1e-3
            np.testing.assert_allclose(their, our.numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("network", sorted({*Network.__args__} - {"transposed", "ladder"}))
def test_onnx_of_every_network_agrees(network, tmp_path, monkeypatch):
    """The third graph is that of both together; the other networks have tests of all three."""
    vae = made(network, **SMALL, **({"depth": 1} if network == "residual" else {}))
    only(("encoder", "decoder"), vae, monkeypatch)
    written = onnx_module.export_onnx(vae, facts_of(vae), tmp_path)
    assert [path.name for path in written] == ["encoder.onnx", "decoder.onnx"]
    for path in written:
        assert_agrees(path, graphs.graphs(vae)[path.stem])


def test_onnx_of_a_ladder_agrees(tmp_path, monkeypatch):
    """Its encoder is in the graph of both, way down and all."""
    vae = made("ladder", latent_dims=8, groups=(1, 1), group_channels=2, **SMALL)
    only(("decoder", "vae"), vae, monkeypatch)
    for path in onnx_module.export_onnx(vae, facts_of(vae), tmp_path):
        assert_agrees(path, graphs.graphs(vae)[path.stem])


def test_the_graphs_are_the_model():
    vae = made("upsample", **SMALL)
    x, z = torch.rand(4, 3, 12, 20), torch.randn(4, 3)
    found = graphs.graphs(vae)
    with torch.no_grad():
        q = vae.encode(x)
        assert torch.equal(found["encoder"].module(x)[0], q.location)
        assert torch.equal(found["decoder"].module(z), vae.decode(z).mean)
        assert torch.equal(found["vae"].module(x), vae.decode(q.location).mean)


def test_programs_of_torch_export_agree_at_any_batch_and_hold_their_own_weights_alone(tmp_path):
    more = {"likelihood": "discretized-logistic", "prior": "vamp", "prior_components": 50}
    vae = made("residual", depth=1, **more, **SMALL)
    encoder, decoder = (
        sum(value.numel() for value in half.state_dict().values())
        for half in (vae.encoder, vae.decoder)
    )
    for path, graph, held in zip(
        export_programs(vae, facts_of(vae), tmp_path),
        graphs.graphs(vae).values(),
        [encoder, decoder, encoder + decoder],
        strict=True,
    ):
        facts = {"convvae.json": ""}
        program = torch.export.load(path, extra_files=facts)
        assert json.loads(facts["convvae.json"])["model"]["network"] == "residual"
        assert sum(value.numel() for value in program.state_dict.values()) == held
        for batch in (1, 9):
            x = torch.rand(batch, *next(iter(graph.inputs.values())))
            found = program.module()(x)
            found = found if isinstance(found, tuple) else (found,)
            for their, our in zip(found, outputs(graph, x), strict=True):
                torch.testing.assert_close(their, our, atol=TOLERANCE, rtol=0)


def test_the_encoder_of_a_flow_gives_its_location_at_any_batch():
    graph = graphs.graphs(made("transposed", posterior="flow", **SMALL))["encoder"]
    assert graph.outputs == ["location"]
    program = graphs.traced(graph).module()  # saved and loaded again
    for batch in (1, 9):
        x = torch.rand(batch, *next(iter(graph.inputs.values())))
        (location,) = program(x)
        torch.testing.assert_close(location, outputs(graph, x)[0], atol=TOLERANCE, rtol=0)


def judging(vae, score):
    """A calibration by 60 images, and what convvae says of 40 others: score, p, flagged."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (100, 3, 12, 20), generator=generator, dtype=torch.uint8)
    images[80:] //= torch.arange(1, 21, dtype=torch.uint8).view(-1, 1, 1, 1)
    known, new = (measure_images(vae, some, seed=0, samples=1) for some in images.split((60, 40)))
    calibration = Calibration.of(known)
    terms = CarriedTerms(
        data="digits", images=60, score=score, false_alarms=0.1, samples=1,
        names=tuple(calibration.normal),
    )  # fmt: skip
    pixels = PixelCalibration(torch.tensor([1]), torch.zeros(1, 12, 20))
    found = judge(new, calibration, None, 0.1, 40)[score]
    return Carried(terms, calibration, pixels), images[60:] / 255, found


def assert_judges(theirs, found):
    score, p, flagged = (np.asarray(one) for one in theirs)
    np.testing.assert_allclose(score, found.score.numpy(), rtol=1e-4, atol=1e-5)
    # A score that is rounded otherwise may change places with a normal image's.
    np.testing.assert_allclose(p, found.p.numpy(), atol=1.01 / 61)
    assert (flagged == (p <= 0.1)).all()
    assert len(np.unique(p)) > 3


@pytest.mark.parametrize(
    "score",
    [
        *("squared_error", "latent_distance", "corrected_error"),
        *("dissimilarity", "neighbours", "combination"),
    ],
)
def test_the_graph_of_a_calibration_judges_as_convvae_does(score):
    vae = made("upsample", **SMALL)
    carried, x, found = judging(vae, score)
    graph = graphs.graphs(vae, carried)["anomalies"]
    assert graph.outputs == ["score", "p", "flagged"]
    assert_judges(outputs(graph, x), found)


def test_onnx_of_a_calibration_judges_as_convvae_does(tmp_path, monkeypatch):
    vae = made("upsample", **SMALL)
    carried, x, found = judging(vae, "combination")
    all_graphs = graphs.graphs
    monkeypatch.setattr(
        onnx_module, "graphs", lambda *given: {"anomalies": all_graphs(*given)["anomalies"]}
    )
    (path,) = onnx_module.export_onnx(vae, facts_of(vae), tmp_path, carried)
    session = onnxruntime.InferenceSession(str(path))
    assert_judges(session.run(None, {"x": x.numpy()}), found)
    one = session.run(None, {"x": x[:1].numpy()})
    assert [len(part) for part in one] == [1, 1, 1]
    facts = json.loads(session.get_modelmeta().custom_metadata_map["convvae.anomalies"])
    assert (facts["score"], facts["false_alarms"]) == ("combination", 0.1)
    assert facts["threshold"] == pytest.approx(found.threshold)


def test_a_calibration_that_draws_has_no_graph():
    vae = made("upsample", **SMALL)
    carried, _, _ = judging(vae, "squared_error")
    terms = carried.terms.model_copy(update={"score": "bound"})
    drawn = Carried(terms, carried.calibration, carried.pixels)
    assert graphs.graphs(vae, drawn).keys() == {"encoder", "decoder", "vae"}


@pytest.mark.parametrize("network", ["upsample", "ladder"])
def test_a_graph_of_a_conditional_model_takes_labels_as_its_second_input(network):
    more = {"latent_dims": 8, "groups": (1, 1), "group_channels": 2} if network == "ladder" else {}
    labels = Condition(labels=("cat", "dog"), counts=(1, 1))
    config = {"image_size": (12, 20), "channels": 1, "max_filters": 4, "condition": labels}
    vae = VAE(ModelConfig(network=network, **(config | more))).eval()
    with torch.no_grad():
        for weights in vae.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    graph = graphs.graphs(vae)["vae"]
    assert graph.inputs == {"x": (1, 12, 20), "y": (2,)}
    program = graphs.traced(graph).module()
    x, y = torch.rand(3, 1, 12, 20), torch.eye(2)[[0, 1, 1]]
    found, ours = program(x, y), reconstruct_of(vae.given(y), x)
    torch.testing.assert_close(found, ours, atol=TOLERANCE, rtol=0)
    assert not torch.allclose(found, program(x, y.flip(1)))


def reconstruct_of(vae, x):
    with torch.no_grad():
        return vae.decode(vae.encode(x).location).mean


def test_the_axis_of_the_images_is_called_batch_and_no_path_is_inside(tmp_path, monkeypatch):
    vae = made("pooled", posterior="full", **SMALL)
    only(("encoder",), vae, monkeypatch)
    for path in onnx_module.export_onnx(vae, facts_of(vae), tmp_path):
        graph = onnx.load(path).graph
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
        assert str(Path.cwd()).encode() not in path.read_bytes()
    for path in export_programs(vae, facts_of(vae), tmp_path):
        program = torch.export.load(path)
        assert [str(symbol) for symbol in program.range_constraints] == ["batch"]
        with zipfile.ZipFile(path) as archive:
            inside = b"".join(archive.read(name) for name in archive.namelist())
        assert str(Path.cwd()).encode() not in inside
        with pytest.raises(AssertionError, match="Guard failed"):
            program.module()(torch.rand(2, 5))


@pytest.mark.parametrize("likelihood", ["continuous-bernoulli", "discretized-logistic-mixture"])
def test_means_that_are_no_sigmoid_go_out_as_they_are(likelihood, tmp_path, monkeypatch):
    """In steep places too: the decoder's output is made a hundred times larger."""
    vae = made("upsample", likelihood=likelihood, **SMALL)
    z = torch.randn(5, 3)
    with torch.no_grad():
        for parameter in vae.decoder.upconv3.parameters():
            parameter.mul_(100)
        assert vae.decoder(z).abs().max() > 30
    only(("decoder",), vae, monkeypatch)
    (path,) = onnx_module.export_onnx(vae, facts_of(vae), tmp_path)
    (found,) = onnxruntime.InferenceSession(str(path)).run(None, {"z": z.numpy()})
    (program,) = export_programs(vae, facts_of(vae), tmp_path)
    with torch.no_grad():
        ours = vae.decode(z).mean.numpy()
        theirs = torch.export.load(program).module()(z).numpy()
    np.testing.assert_allclose(found, ours, atol=1e-5)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert len(onnx.load(path).graph.node) < 400


def test_the_command_writes_three_files_that_say_what_they_are(tmp_path, capsys):
    vae = made("transposed", **SMALL)
    save_model(tmp_path / "m.safetensors", vae, facts_of(vae))
    words = ["export", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "out")]
    assert main([*words, "--format", "onnx"]) == 0
    assert capsys.readouterr().out.count("wrote") == 3
    for name, graph in graphs.graphs(vae).items():
        assert_agrees(tmp_path / "out" / f"{name}.onnx", graph)
    (entry,) = onnx.load(tmp_path / "out" / "encoder.onnx").metadata_props
    assert ModelMetadata.model_validate_json(entry.value) == facts_of(vae)
    (tmp_path / "file").write_text("")
    words[-1] = str(tmp_path / "file")
    assert main([*words, "--format", "pt2"]) == 12
    assert "cannot make the folder" in capsys.readouterr().err


def test_a_missing_library_and_a_size_beyond_the_format_are_said(tmp_path, monkeypatch):
    vae = made("upsample", **SMALL)
    monkeypatch.setattr(onnx_module, "MAX_ONNX_BYTES", 1000)
    with pytest.raises(ModelMismatchError, match="pt2"):
        onnx_module.export_onnx(vae, facts_of(vae), tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"convvae\[onnx\]"):
        onnx_module.export_onnx(vae, facts_of(vae), tmp_path / "out")
    assert not (tmp_path / "out").exists()
