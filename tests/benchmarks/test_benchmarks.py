"""The benchmarks' own parts: tables, the reader of images, the plain PyTorch network."""

import copy
import dataclasses
import gzip
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks import (
    bounds,
    engine,
    environments,
    explorer,
    ingest,
    machine,
    memory,
    parallel,
    peers,
    plain,
    quality,
    report,
    summary,
    table,
)
from benchmarks.workers import common, pytorch
from convvae import data
from convvae.config import ModelConfig
from convvae.distributions import (
    DiagonalGaussian,
    Gaussian,
    StandardNormal,
    gaussian_squared_error,
    kl_divergence,
)
from convvae.model.run_folder import RunFolder
from convvae.model.vae import VAE
from convvae.networks import UpConv2d


def row(number, speed, setup=1.0):
    return {
        "round": number,
        "images_per_second": speed,
        "setup_seconds": setup,
        "precision": "float32",
        "versions": {"torch": "2.0"},
    }


def header(command):
    return {
        "date": "2020-01-02",
        "command": f"python -m benchmarks.{command}",
        "machine": {
            "cpu": "Some CPU",
            "cores": 2,
            "flags": ["avx2"],
            "memory_gib": 8.0,
            "os": "Linux",
            "python": "3.11",
            "load_average": 0.0,
        },
    }


@pytest.fixture
def result():
    return {
        **header("peers --rounds 3"),
        "rounds": 3,
        "threads": 2,
        "batch_size": 128,
        "images": {"convvae": 1280, "slow": 128, "absent": 128},
        "peers": {
            "convvae": {
                "what": "this",
                "rounds": [row(0, 1000.0), row(1, 1200.0), row(2, 900.0)],
                "error": None,
            },
            "slow": {
                "what": "that",
                "rounds": [row(0, 100.0), row(2, 300.0, setup=2.0)],
                "error": "not done after 900 s",
            },
            "absent": {"what": "none", "rounds": [], "error": "no such package"},
        },
    }


def idx(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def digits():
    return np.arange(5 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(5, 28, 28)


def test_ratio_is_taken_within_a_round(result):
    ours, slow, absent = summary.summarise(result)
    assert ours.ratio == (1, 1, 1)
    assert ours.speed == (1000, 900, 1200)
    assert slow.ratio == (6.5, 3, 10)
    assert slow.setup == (1.5, 1, 2)
    assert absent.speed is None
    assert absent.ratio is None


def test_without_convvae_there_is_no_ratio(result):
    result = copy.deepcopy(result)
    del result["peers"]["convvae"]
    assert all(item.ratio is None for item in summary.summarise(result))


def test_peers_table(result):
    text = table.peers_table(result)
    assert "| `slow`: that | 200 (100–300) | 1.5 (1.0–2.0) | 6.50 (3.00–10.00) | float32 |" in text
    assert "| `absent`: none | — | — | — | — |" in text
    assert "`absent` is incomplete: no such package" in text
    assert "Some CPU, 2 cores (avx2)" in text
    assert "Versions: torch 2.0." in text
    assert "Command: `python -m benchmarks.peers --rounds 3`" in text


def test_fill_replaces_what_stands_between_the_markers():
    page = "a\n<!-- x.json -->\nold\n<!-- /x.json -->\nb\n"
    filled = table.fill(page, "x.json", "new")
    assert filled == "a\n<!-- x.json -->\nnew\n<!-- /x.json -->\nb\n"
    assert table.fill(filled, "x.json", "new") == filled
    with pytest.raises(ValueError, match="markers of y"):
        table.fill(page, "y.json", "new")


def test_every_result_has_its_place_in_the_page():
    for page_name, tables in table.TABLES.items():
        page = (table.DOCS / page_name).read_text(encoding="utf-8")
        for name in tables:
            assert "only this" in table.fill(page, name, "only this")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_reads_images_where_torchvision_puts_them(tmp_path, digits, pack):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    name = "train-images-idx3-ubyte" + (".gz" if pack is gzip.compress else "")
    (folder / name).write_bytes(pack(idx(digits)))
    assert np.array_equal(common.read_images(tmp_path, 3), digits[:3])
    with pytest.raises(ValueError, match="6 images asked for"):
        common.read_images(tmp_path, 6)


def test_broken_images_are_named(tmp_path, digits):
    with pytest.raises(FileNotFoundError, match="train-images"):
        common.read_images(tmp_path, 1)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx(digits)[:-1])
    with pytest.raises(ValueError, match="not whole"):
        common.read_images(tmp_path, 1)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="not an idx file"):
        common.read_images(tmp_path, 1)


def test_resizes_as_convvae_does(digits):
    ours = data.resize(torch.tensor(digits[:, None]), (common.SIDE, common.SIDE))[:, 0].numpy()
    theirs = np.stack([common.resize(image) for image in digits])
    assert theirs.shape == (5, 64, 64)
    assert theirs.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_pytorch_network_is_the_model(digits):
    vae = pytorch.VAE()
    assert pytorch.count_parameters(vae) == common.PARAMETERS
    x = torch.stack([pytorch.Digits(digits)[i] for i in range(2)])
    assert x.shape == (2, 1, 64, 64)
    reconstruction, mu, logvar = vae(x)
    assert reconstruction.shape == x.shape
    assert mu.shape == logvar.shape == (2, common.LATENTS)
    assert pytorch.loss_function(reconstruction, x, mu, logvar).ndim == 0


def test_pytorch_loss_is_the_tutorials():
    model = ModelConfig(image_size=(64, 64), channels=1)
    x, reconstruction = torch.rand(2, 3, 1, 64, 64)
    mu, logvar = torch.randn(2, 3, common.LATENTS)
    q, prior = DiagonalGaussian(mu, logvar), StandardNormal(common.LATENTS)
    log_px = Gaussian(reconstruction, model.variance).log_prob(x).sum()
    kl = kl_divergence(q, prior).sum()
    expected = gaussian_squared_error(float(log_px) / 3, model.pixels, model.variance) * 3 + kl
    actual = pytorch.loss_function(reconstruction, x, mu, logvar)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=0)


def test_another_number_of_parameters_is_refused():
    assert common.check_parameters(common.PARAMETERS) == 149_265
    with pytest.raises(ValueError, match="1,000 trainable parameters"):
        common.check_parameters(1000)


def test_command_repeats_the_measurement(tmp_path):
    options = peers.parse(
        ["--peers", "convvae,mlx", "--threads", "1", "--data-dir", str(tmp_path), "--images", "300"]
    )
    assert options.images_of("mlx") == 256
    command = options.command()
    assert command == (
        "python -m benchmarks.peers --peers convvae,mlx --rounds 3 --images 300 "
        "--batch-size 128 --threads 1"
    )
    again = peers.parse([*command.split()[3:], "--data-dir", str(tmp_path)])
    assert again == options


def test_failure_is_recorded_with_its_reason(tmp_path, monkeypatch):
    def fail(peer, options):
        raise environments.PeerError(f"no files in {options.data_dir}")

    monkeypatch.setattr(peers, "work", fail)
    options = peers.parse(["--peers", "mlx", "--data-dir", str(tmp_path), "--rounds", "2"])
    measured = peers.measure(options, Console(quiet=True))
    assert measured["peers"]["mlx"]["error"] == "no files in DATA"
    assert measured["peers"]["mlx"]["rounds"] == []
    assert "`mlx` is incomplete: no files in DATA" in table.peers_table(measured)


def test_reason_is_the_line_that_says_why():
    assert environments.reason("Traceback\n  x\nValueError: no\n") == "ValueError: no"
    assert environments.reason("WARNING: a\nERROR: No matching b\nWARNING: c") == (
        "ERROR: No matching b"
    )
    assert environments.reason("") == ""


def test_command_that_fails_or_is_missing_says_so():
    with pytest.raises(environments.PeerError, match="why"):
        environments.run([sys.executable, "-c", "import sys; sys.exit('why')"])
    with pytest.raises(environments.PeerError, match="cannot start"):
        environments.run(["./no-such-program"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matmul_ceiling_is_a_speed(dtype):
    assert machine.matmul_ceiling(dtype, size=16, repeats=2) > 0


def test_machine_is_described():
    facts = machine.facts()
    assert facts["cores"] >= 1
    assert facts["cpu"] in machine.describe(facts)


@pytest.fixture
def engine_result():
    def variant(error=None, compiling=None, precision="float32", speeds=()):
        rounds = [{"round": i, "images_per_second": speed} for i, speed in enumerate(speeds)]
        return {
            "what": "some way",
            "precision": precision,
            "compile_seconds": compiling,
            "rounds": rounds,
            "error": error,
        }

    return {
        **header("engine --rounds 2"),
        "versions": {"torch": "2.0"},
        "rounds": 2,
        "steps": 20,
        "threads": 2,
        "batch_size": 128,
        "images": "random bytes",
        "flops_per_image": 10_000_000,
        "ceiling_gflops": {"float32": [90.0, 100.0], "bfloat16": [200.0, 150.0]},
        "variants": {
            summary.PLAIN: variant(speeds=[500.0, 1000.0]),
            "bfloat16": variant(speeds=[2000.0, 3000.0], precision="bfloat16"),
            "float32-compiled": variant(speeds=[1000.0, 1500.0], compiling=12.34),
            "bfloat16-compiled": variant(error="no compiler", precision="bfloat16"),
        },
    }


def test_engine_is_compared_within_a_round_and_with_the_ceiling_of_its_precision(engine_result):
    slow, fast, compiled, skipped = summary.summarise_engine(engine_result)
    assert slow.ratio == (1, 1, 1)
    assert fast.ratio == (3.5, 3, 4)
    assert slow.share == pytest.approx((7.5, 5, 10))
    assert fast.share == pytest.approx((12.5, 10, 15))
    assert compiled.cells()[-1] == "12.3"
    assert skipped.cells() == ["—"] * 4


def test_engine_table(engine_result):
    text = table.engine_table(engine_result)
    assert "| `bfloat16`: some way | 2,500 (2,000–3,000) | 3.50 (3.00–4.00) |" in text
    assert "`bfloat16-compiled` was skipped: no compiler" in text
    assert "10,000,000 operations an image" in text
    assert "100 GFLOP/s in float32, 200 GFLOP/s in bfloat16" in text
    assert "Versions: torch 2.0." in text


def test_plain_network_computes_the_same():
    vae = VAE(engine.model())
    z = torch.randn(2, common.LATENTS)
    expected, names = vae.decode(z).mean, list(vae.state_dict())
    plain.upsample_plainly(vae)
    assert not any(isinstance(layer, UpConv2d) for layer in vae.decoder.children())
    assert list(vae.state_dict()) == names
    torch.testing.assert_close(vae.decode(z).mean, expected)


@pytest.mark.parametrize("name", engine.VARIANTS)
def test_feature_maps_of_a_variant_are_in_its_order(name):
    variant = engine.VARIANTS[name]
    config = engine.settings("float32", 2)
    vae = engine.learner(dataclasses.replace(variant, compiled=False), config).vae
    seen = []
    for layer in (vae.encoder.bn2, vae.decoder.bn1, vae.decoder.bn2):
        layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    vae.decode(vae.encode(torch.rand(2, 1, common.SIDE, common.SIDE)).mean)
    order = torch.channels_last if variant.channels_last else torch.contiguous_format
    assert [output.is_contiguous(memory_format=order) for output in seen] == [True] * 3


def test_arithmetic_of_the_network_is_counted_exactly():
    # Convolutions: output cells x taps x channels in x out (four phases out); linear layers.
    first = 32 * 32 * 9 * 16
    encoder = 16 * 16 * 9 * 16 * 32 + 8 * 8 * 9 * 32 * 64 + 2 * 4096 * 8
    decoder = 8 * 4096 + 9 * 9 * 4 * 64 * 128 + 17 * 17 * 4 * 32 * 64 + 33 * 33 * 4 * 16 * 4
    # Backward is twice forward, but the images need no gradient.
    assert engine.flops_per_image() == 2 * (3 * (first + encoder + decoder) - first)


def test_variant_that_cannot_run_here_says_why(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(engine.SkippedError, match="no-such-compiler is not there"):
        engine.VARIANTS["float32-compiled"].check()
    monkeypatch.setattr(engine.runtime, "pick_precision", lambda *_: "float32")
    with pytest.raises(engine.SkippedError, match="bfloat16"):
        engine.VARIANTS["bfloat16"].check()


def test_command_of_the_engine_repeats_it():
    options = engine.parse(["--variants", "float32", "--rounds", "2", "--steps", "3"])
    assert engine.parse(options.command().split()[3:]) == options


def training_run(seed, values, *, bound=-2400.0, precision="bfloat16"):
    epochs = [
        {
            "epoch": i + 1,
            "squared_error_and_kl": value,
            "validation_squared_error_and_kl": 64.0,
            "validation_bound": bound,
            "training_seconds": 10.0,
            "wall_seconds": 5.0 + 12.0 * (i + 1),
        }
        for i, value in enumerate(values)
    ]
    wall = 9.0 + 12.0 * len(values)
    return {
        "recipe": "some",
        "seed": seed,
        "precision": precision,
        "wall_seconds": wall,
        "epochs": epochs,
    }


def quality_result(runs, command="quality"):
    return {
        **header(command),
        "versions": {"torch": "2.0"},
        "threads": 2,
        "target": 64.7,
        "recipes": ["some", "absent"],
        "runs": runs,
        "errors": {"absent": "no recipe 'absent'"},
    }


def test_target_is_reached_at_the_end_of_an_epoch():
    run = training_run(0, [80.0, 64.7, 70.0, 60.0])
    assert summary.reached(run, 64.7) == (2, 20, 29)
    assert summary.reached(run, 59.9) is None


def test_race_has_a_row_for_every_seed_and_their_mean():
    runs = [training_run(0, [80.0, 64.0]), training_run(1, [64.5, 63.0], bound=-2402.0)]
    assert summary.quality_rows(quality_result(runs)) == [
        ["some, seed 0", "2.0", "20.0", "29.0", "33.0", "64.00", "-2,400.00"],
        ["some, seed 1", "1.0", "10.0", "17.0", "33.0", "63.00", "-2,402.00"],
        [
            *("some, mean of 2", "1.5 (1.0–2.0)", "15.0 (10.0–20.0)", "23.0 (17.0–29.0)"),
            *("33.0 (33.0–33.0)", "63.50 (63.00–64.00)", "-2,401.00 (-2,402.00 to -2,400.00)"),
        ],
    ]


def test_a_seed_that_misses_the_target_is_not_left_out_of_the_mean():
    runs = [training_run(0, [64.0]), training_run(1, [65.0])]
    (_, missed, mean) = summary.quality_rows(quality_result(runs))
    assert missed[1:4] == ["not reached", "—", "—"]
    assert mean[1:4] == ["reached by 1 of 2", "—", "—"]


def test_quality_table():
    text = table.quality_table(quality_result([training_run(0, [64.0])]))
    assert "| some, seed 0 | 1.0 | 10.0 | 17.0 | 21.0 | 64.00 | -2,400.00 |" in text
    assert "absent is incomplete: no recipe 'absent'" in text
    assert "Command: `python -m benchmarks.quality`" in text


@pytest.mark.parametrize(
    ("bounds", "words"),
    [((-2400.1, -2400.7), "-0.400 nats"), ((-2400.2, -2400.1), "-0.150 nats")],
)
def test_precisions_agree_within_the_limit(bounds, words):
    runs = [training_run(seed, [64.0], precision="float32") for seed in range(3)]
    runs += [training_run(i, [64.0], bound=bound) for i, bound in enumerate(bounds)]
    found = quality_result(runs, "quality --agree")
    assert [pair.seed for pair in summary.pairs(found, "some")] == [0, 1]
    (verdict,) = summary.verdicts(found)
    assert words in verdict
    assert "the limit is 0.320" in verdict
    assert verdict.endswith("they agree." if words == "-0.150 nats" else "they do NOT agree.")
    assert verdict in table.agree_table(found)


def test_epochs_are_recorded_an_image():
    logged = {
        "epoch": 1,
        "train_squared_error_and_kl": 8320.0,
        "val_squared_error_and_kl": 8192.0,
        "val_bound": -2400.0,
        "seconds": 10.0,
    }
    kept = quality.epoch_record(logged, 128, 17.0)
    assert kept["squared_error_and_kl"] == 65
    assert kept["validation_squared_error_and_kl"] == 64
    assert kept["wall_seconds"] == 17
    with pytest.raises(environments.PeerError, match="gaussian"):
        quality.epoch_record(logged | {"train_squared_error_and_kl": None}, 128, 17.0)


def test_commands_of_quality_repeat_it():
    race = quality.parse(["--seeds", "3", "--limit", "100", "--threads", "1"])
    agree = quality.parse(["--agree", "--threads", "1"])
    for options in (race, agree):
        assert quality.parse(options.command().split()[3:]) == options
    assert [str(training) for training in race.trainings()] == ["fast-cvae seed 3"]
    assert [str(training) for training in agree.trainings()][:3] == [
        *("mlx-cvae float32 seed 0", "mlx-cvae bfloat16 seed 0", "mlx-cvae float32 seed 1")
    ]
    (own,), (single, *_) = race.trainings(), agree.trainings()
    assert "--precision" not in quality.words(own, race, Path("run"))
    assert "--precision float32" in " ".join(quality.words(single, agree, Path("run")))
    assert (race.epochs, agree.epochs) == (None, 5)
    assert (race.out.name, agree.out.name) == ("quality.json", "agree.json")


def test_follow_notes_every_epoch_and_passes_an_error_on(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "POLL_SECONDS", 0.01)
    run = RunFolder(tmp_path)
    script = f"open({str(run.metrics)!r}, 'w').write('{{\"event\": \"epoch\"}}\\n' * 2)"
    *moments, ended = quality.follow([sys.executable, "-c", script], run, 1)
    assert len(moments) == 2
    assert moments[-1] <= ended
    with pytest.raises(environments.PeerError, match="no recipe"):
        quality.follow([sys.executable, "-c", "import sys; sys.exit('no recipe')"], run, 1)


def test_table_is_printed_whole(capsys):
    report.show(report.console(), header("x"), ["name", "value"], [["a", "1"]])
    assert "Some CPU" in capsys.readouterr().out


def test_memory_has_a_row_for_every_epoch_and_the_pictures():
    result = {"peak_mib": [1000.4, 1002.0], "pictures_mib": 1020.0}
    assert memory.rows(result) == [["1", "1,000"], ["2", "1,002"], ["final pictures", "1,020"]]


def test_memory_of_a_process_is_seen_until_it_ends():
    assert memory.resident(os.getpid()) > 50
    assert memory.resident(2**22 + 1) == 0


def test_processes_are_compared_with_one_within_a_round():
    result = {"cores": 2, "images_per_second": {"1": [100.0, 200.0], "2": [120.0, 180.0]}}
    assert parallel.rows(result) == [
        ["1 x 2 threads", "150 (100–200)", "1.00 (1.00–1.00)"],
        ["2 x 1 threads", "150 (120–180)", "1.05 (0.90–1.20)"],
    ]


def test_commands_of_memory_and_of_processes_repeat_them():
    for module, words in (
        (bounds, ["--samples", "1,20"]),
        (memory, ["--epochs", "2"]),
        (parallel, ["--rounds", "2"]),
    ):
        options = module.parse(words)
        assert module.parse(options.command().split()[3:]) == options


def test_the_table_of_bounds_has_a_row_a_k():
    bound = {"mean": -1234.567, "standard_error": 0.5}
    run = {"samples": 1000, "seconds": 50.0, "peak_mib": 512.4, "bound": bound}
    assert bounds.rows({"images": 100, "runs": [run]}) == [
        ["1,000", "-1,234.57 ± 0.50", "50.0", "2.0", "2,000", "512"]
    ]


def test_bounds_are_measured_by_the_command_line(mnist_dir, tmp_path):
    words = ["--images", "3", "--samples", "1,2", "--threads", "1", "--data-dir", str(mnist_dir)]
    options = bounds.parse([*words, "--model", "mnist-2d", "--out", str(tmp_path / "b.json")])
    found = bounds.evaluate(options, 2)
    assert found["samples"] == 2
    assert found["peak_mib"] > 50
    assert found["bound"]["mean"] < 0


def test_the_explorers_times_are_summed_up():
    times = [*range(1, 101)]
    found = explorer.summary(times[::-1])
    assert found == {"events": 100, "median_ms": 50.5, "p95_ms": 95, "max_ms": 100}
    assert explorer.summary([7.0])["p95_ms"] == 7


def test_the_explorers_result_is_a_table_and_its_command_repeats_it():
    options = explorer.parse(["--points", "50", "--events", "10"])
    assert "--points 50 --events 10" in options.command()
    times = explorer.summary([1.0, 2.0, 4.0])
    result = {"points": 50, "open": times, "slider": times, "pointer": times, "all_events": times}
    for row in explorer.rows(result):
        assert len(row) == len(explorer.HEADER)
        assert row[1:] == ["2.0", "4.0", "4.0", "3"]


def test_the_rows_of_reading_images():
    result = {
        "images_per_second": {
            "plain_loop": [100.0, 200.0, 150.0],
            "data_loader": [50.0, 100.0, 75.0],
            "convvae": [200.0, 400.0, 450.0],
        },
        "second_start_seconds": [1.0, 2.0, 3.0],
        "second_start_process_seconds": [4.0, 5.0, 6.0],
        "training": {"cache": [9.0, 10.0], "memory": [10.0, 10.0]},
        "memory": [{"images": 10, "gib": 0.5, "own_mib": 600.2, "mapped_mib": 1000.0}],
    }
    rows = dict(ingest.rows(result))
    assert rows["convvae ÷ Pillow loop"] == "2.00 (2.00–3.00)"
    assert rows["convvae ÷ DataLoader"] == "4.00 (4.00–6.00)"
    assert rows["second start: both parts ready, s"] == "2.00 (1.00–3.00)"
    assert rows["cache ÷ memory"] == "0.95 (0.90–1.00)"
    assert rows["reading and training, 10 images of 0.5 GiB"] == (
        "own memory at most 600 MiB, mapped files 1,000 MiB"
    )


@pytest.mark.parametrize("work", ["plain_loop", "data_loader", "convvae_load"])
def test_every_reader_reads_every_image(work, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    ingest.make_folder(tmp_path / "small", 12)
    assert ingest.WORKERS[work](tmp_path / "small")["seconds"] > 0


def test_the_memory_of_a_command_is_watched(tmp_path):
    command = [sys.executable, "-c", "import time; x = b'1' * 300_000_000; time.sleep(0.5)"]
    assert 280 < ingest.watch(command, tmp_path)["own_mib"] < 900
