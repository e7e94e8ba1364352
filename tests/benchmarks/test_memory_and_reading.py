"""The benchmarks of memory, bounds, the explorer and reading."""

import os
import sys

import pytest

from benchmarks import (
    bounds,
    explorer,
    ingest,
    memory,
    parallel,
    safeguards,
    scaling,
    shards,
    table,
)
from convvae.cli.main import main
from convvae.config import ModelConfig
from convvae.model.checkpoint import load_model
from convvae.model.run_folder import RunFolder


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


def test_machines_pay_until_the_sum_of_gradients_takes_as_long_as_the_step():
    found = {"batch_size": 64, "parameters": 250_000, "shape": [1, 10, 10]}
    found |= {"one": [0.1, 0.2], "many": [0.1, 0.1], "plain": [0.2, 0.1], "reduce": [0.001, 0.003]}
    found["parts"] = {"64": [0.64], "32": [0.32], "16": [0.16]}  # 10 ms an image, nothing else
    assert scaling.line(found) == pytest.approx((0, 0.01))
    # A megabyte of gradients at a megabyte a second: 2 (n - 1) / n seconds.
    slow = scaling.Network("slow", 1e6, 0.0)
    assert scaling.step_seconds(found, 4, slow) == pytest.approx(0.64 / 4 + 1.5)
    assert scaling.paying(found, slow)[0] == 1
    fast = scaling.Network("fast", 1e9, 0.0)
    # Efficiency 0.64 / (0.64 + 2 (n - 1) ms) is a half where n = 321, and a batch has 64 images.
    assert scaling.paying(found, fast)[0] == 64
    late = scaling.Network("late", 1e15, 0.01)
    # The same with n (n - 1) 20 ms: at six machines 0.6 s, at seven 0.84 s.
    assert scaling.paying(found, late)[0] == 6
    result = {"recipes": {"x": found}, "networks": [fast._asdict()], "rounds": 2, "steps": 3}
    result |= {"cores": 2, "processes": 2, "date": "d", "command": "c", "versions": {"torch": "2"}}
    machine = {"cpu": "C", "cores": 2, "flags": [], "memory_gib": 1, "os": "L", "python": "3"}
    text = table.scaling_table(result | {"machine": machine | {"load_average": 0}})
    assert "| 1.50 (1.00–2.00) |" in text  # times as fast as one process, in each round
    assert "| `x` | 1.00 | 2.0 (1.0–3.0) | 150.0 (100.0–200.0) | 0.0 |" in text
    assert "| `x` | fast | 64 |" in text


def test_commands_of_memory_and_of_processes_repeat_them():
    for module, words in (
        (bounds, ["--samples", "1,20"]),
        (memory, ["--epochs", "2"]),
        (parallel, ["--rounds", "2"]),
        (scaling, ["--rounds", "2", "--recipes", "mlx-cvae"]),
        (scaling, ["--quick"]),
        (safeguards, ["--rounds", "2", "--recipes", "photos"]),
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


def test_shards_are_compared_with_memory_and_their_memory_with_that_of_the_first():
    options = shards.parse(["--images", "5", "--shards", "1,3"])
    assert shards.parse(options.command().split()[3:]) == options
    memory = [
        {"shards": 1, "own_mib": 300.0, "mapped_mib": 90.0},
        {"shards": 50, "own_mib": 315.0, "mapped_mib": 100.0},
    ]
    result = {
        "images_per_shard": 2000,
        "first_reading_images_per_second": 1234.5,
        "images_per_second": {"shards": [95.0, 98.0], "memory": [100.0, 100.0]},
        "memory": memory,
    }
    rows = dict(shards.rows(result))
    assert rows["shards ÷ memory"] == "0.96 (0.95–0.98)"
    assert rows["reading and training, 50 shards of 100,000 images"] == (
        "own memory at most 315 MiB (1.05 of the first), mapped files 100 MiB"
    )


def test_saves_and_checksums_are_compared_with_what_they_slow_down(tmp_path, monkeypatch):
    small = ModelConfig(image_size=(8, 8), channels=1, latent_dims=2, max_filters=4)
    monkeypatch.setattr(safeguards, "LARGE", small)
    found = safeguards.save_times("mlx-cvae", tmp_path / "run", 2)
    assert len(found["seconds"]) == 2
    assert RunFolder(tmp_path / "run").is_saved()
    loads = safeguards.load_times(tmp_path, 3)
    assert [len(loads[where]["checked"]) for where in ("memory", "disk")] == [3, 3]
    damaged = bytearray((tmp_path / "plain.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "plain.safetensors").write_bytes(damaged)
    load_model(tmp_path / "plain.safetensors")  # nobody checks it
    loads |= {"memory": {"checked": [0.1, 0.3], "unchecked": [0.1, 0.2]}, "bytes": 10**8}
    saves = {"photos": {"seconds": [0.6, 0.6], "bytes": 2 * 10**6}}
    rows = dict(safeguards.rows({"every_seconds": 599.4, "saves": saves, "loads": loads}))
    assert rows["a save of `photos`, 2.0 MB, ms"] == "600.0 (600.0–600.0)"
    assert rows["the same, % of 10 minutes"] == "0.1000 (0.1000–0.1000)"
    assert rows["a model of 100 MB, in memory: checked ÷ unchecked"] == "1.25 (1.00–1.50)"


def test_shards_of_a_benchmark_are_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SETTLED_SECONDS", 0.0)
    monkeypatch.setenv("CONVVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ingest, "watch", lambda command, _: {"code": main([*command[3:]])})
    (tmp_path / "cache-shards-2").mkdir()
    made = shards.make_shards(tmp_path, 20, 2)
    assert len(list(made.glob("*.tar"))) == 2
    assert shards.watch_training(tmp_path, made, 40) == {"code": 0}
    assert len(RunFolder(tmp_path / "run-shards-2").read_metrics()) == 1
