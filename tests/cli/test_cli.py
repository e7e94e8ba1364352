import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from convvae import data, errors
from convvae.cli.main import COMMANDS, main
from convvae.evaluation import scorecard
from convvae.model.checkpoint import load_metadata, load_tensors

QUICK = ["--limit", "100", "--max_filters", "8", "--epochs", "1", "--batchsize", "32", "--cpu",
         "--no-report"]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capsys, error, *words):
    """Run a command that must fail with one line on stderr; return the line."""
    assert main([str(word) for word in words]) == error.exit_code
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("convvae: ")
    assert "Traceback" not in printed.out
    return lines[0]


def test_help_lists_every_command_without_torch():
    code = (
        "import sys; from convvae.cli.main import main; main(['--help']);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib', 'sklearn', 'rich')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, command in COMMANDS.items():
        assert name in done.stdout
        assert command.__doc__ in done.stdout


def test_importing_the_package_is_light():
    code = "import sys, convvae; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert f"usage: convvae {name}" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("convvae ")


def test_no_command_shows_help(capsys):
    assert main([]) == 0
    assert "usage: convvae" in capsys.readouterr().out


# The tutorials' own command lines.


def test_train_takes_the_flags_of_the_mlx_tutorial(here, capsys):
    words = "--cpu --seed=3 --batchsize=32 --max_filters=8 --epochs=1 --lr=0.002 --latent_dims=3"
    assert main(["train", "digits", "--limit", "100", *words.split()]) == 0
    metadata = load_metadata(here / "runs" / "digits")
    assert (metadata.model.max_filters, metadata.model.latent_dims, metadata.epochs) == (8, 3, 1)
    settings = json.loads((here / "runs/digits/config.json").read_text())["settings"]
    assert (settings["seed"], settings["batch_size"], settings["lr"]) == (3, 32, 0.002)
    out = capsys.readouterr().out
    assert "device = cpu" in out
    assert "M trainable parameters" in out


@pytest.mark.parametrize(("flag", "split"), [([], "train"), (["--rec_testdata"], "test")])
def test_reconstruct_takes_the_flags_of_the_mlx_tutorial(flag, split, here, finished_run, capsys):
    words = ["--cpu", "--latent_dims=2", "--max_filters=8", "--outdir=out", *flag]
    assert main(["reconstruct", str(finished_run.path), *words]) == 0
    with Image.open(here / "out" / f"reconstructions-{split}.png") as image:
        assert image.mode == "L"
    assert f"64 {split} images of digits" in capsys.readouterr().out


def test_generate_takes_the_flags_of_the_mlx_tutorial(here, finished_run, capsys):
    words = "--cpu --latent_dims=2 --max_filters=8 --nimg_channels=1 --outfile=a/b.png --overwrite"
    drawn = []
    for model, seed in ((finished_run.path, 0), (finished_run.path, 0), (finished_run.model, 1)):
        assert main(["generate", str(model), *words.split(), f"--seed={seed}"]) == 0
        drawn.append((here / "a/b.png").read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]
    assert "128 samples" in capsys.readouterr().out


def test_generate_writes_one_file_an_image(here, finished_run, capsys):
    words = ["generate", finished_run.path, "--count", "11", "--cpu"]
    assert main([str(word) for word in [*words, "--outfile", "grid.png"]]) == 0
    words += ["--separate", "--outfile", "drawn"]
    assert main([str(word) for word in words]) == 0
    assert "wrote drawn: 11 samples" in capsys.readouterr().out
    files = sorted((here / "drawn").iterdir())
    assert [file.name for file in files] == [f"{place:02}.png" for place in range(11)]
    grid = np.asarray(Image.open(here / "grid.png"))
    assert np.array_equal(np.asarray(Image.open(files[1])), grid[2:10, 12:20])
    assert "not empty" in fails(capsys, errors.OutputError, *words)
    assert "name a folder" in fails(capsys, errors.OutputError, *words[:-1], "one.png")
    assert sorted(path.name for path in here.iterdir()) == ["drawn", "grid.png"]


def test_a_recipe_gives_the_settings_and_a_flag_overrides_it(here, capsys):
    words = ["--recipe", "mnist-2d", *QUICK, "--image-size", "28", "--log-every=50"]
    assert main(["train", "digits", *words]) == 0
    out = capsys.readouterr().out
    for line in ("recipe = mnist-2d", "mc_samples = 3", "network = pooled", "epochs = 1"):
        assert line in out
    metadata = load_metadata(here / "runs" / "digits-mnist-2d")
    assert (metadata.recipe, metadata.model.likelihood) == ("mnist-2d", "bernoulli")


def test_runs_are_numbered_and_never_overwritten(here):
    for _ in range(2):
        assert main(["train", "digits", *QUICK]) == 0
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["digits", "digits-2"]


def test_resume_needs_nothing_retyped(here, capsys):
    assert main(["train", "digits", *QUICK, "--out=run"]) == 0
    assert main(["train", "--resume", "run", "--epochs", "2"]) == 0
    assert load_metadata("run").epochs == 2
    assert main(["train", "digits", *QUICK, "--out=whole", "--epochs=2"]) == 0
    whole, resumed = (load_tensors(here / n / "model.safetensors")[0] for n in ("whole", "run"))
    assert all((whole[name] == value).all() for name, value in resumed.items())


def test_info_in_words_and_as_json(finished_run, capsys):
    assert main(["info", str(finished_run.path)]) == 0
    out = capsys.readouterr().out
    assert "image_size    8x8" in out
    assert "network       upsample" in out
    assert main(["info", str(finished_run.path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["model"]["latent_dims"] == 2
    assert content["parameters"] > 0


def test_models_lists_the_pretrained(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for name in ("mlx-cvae", "mnist-2d", "mnist-bernoulli"):
        assert name in out
    assert "149,265 parameters" in out


def test_generate_from_a_pretrained_name_with_an_empty_cache(here, monkeypatch, capsys):
    monkeypatch.setenv("CONVVAE_CACHE", str(here / "cache"))
    monkeypatch.delenv("CONVVAE_DATA", raising=False)
    for name in ("a", "b"):
        words = ["generate", "mlx-cvae", "--latent_dims=8", f"--outfile={name}.png", "--seed=0"]
        assert main(words) == 0
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()
    with Image.open(here / "a.png") as image:
        assert image.size == (16 * 66 + 2, 8 * 66 + 2)
    assert not (here / "cache").exists()


def test_reconstruct_real_mnist_with_a_pretrained_name(here, mnist_dir, capsys):
    pictures = []
    for name in ("a", "b"):
        words = ["reconstruct", "mlx-cvae", "--rec_testdata", f"--outdir={name}"]
        assert main([*words, "--data-dir", str(mnist_dir)]) == 0
        pictures.append((here / name / "reconstructions-test.png").read_bytes())
    assert pictures[0] == pictures[1]


# Bad input: one line, the next step, the class's exit code, nothing written.


@pytest.mark.parametrize(
    ("error", "words", "message"),
    [
        (errors.UsageError, ["trian"], "did you mean train?"),
        (errors.UsageError, ["train"], "Missing"),
        (errors.UsageError, ["train", "digits", "--latent-dimms", "2"], "--latent-dimms"),
        (errors.UsageError, ["train", "digits", "--epochs", "ten"], "--epochs"),
        (errors.UsageError, ["train", "digits", "--recipe", "mlx-vae"], "mlx-cvae"),
        (errors.UsageError, ["train", "--resume"], "--resume needs a value"),
        (errors.UsageError, ["train", "--resume", ""], "--resume needs a value"),
        (errors.UsageError, ["train", "--resume", "--epochs", "3"], "--resume needs a value"),
        (errors.UsageError, ["train", "digits", "--recipe", "a", "--recipe", "b"], "2 times"),
        (errors.UsageError, ["train", "digits", "--cpu", "--device", "cuda"], "contradict"),
        (errors.MissingFolderError, ["train", "mnist", "--data-dir", "~no-one/x"], "~no-one"),
        (errors.ConfigError, ["train", "digits", "--mc-samples", "100000000"], "mc_samples"),
        (errors.ImageSizeError, ["train", "digits", "--image-size", "99999"], "too large"),
        (errors.ModelFileError, ["info", ""], "no model ''"),
        (errors.UnknownDataError, ["train", "mnits"], "mnist"),
        (errors.MissingFolderError, ["train", "mnist", "--data-dir", "nowhere"], "nowhere"),
        (errors.ConfigError, ["train", "digits", "--max_filters", "30"], "divisible by 4"),
        (errors.ConfigError, ["train", "digits", "--max_filters", "0"], "max_filters"),
        (errors.ConfigError, ["train", "digits", "--batchsize", "-1"], "batch_size"),
        (errors.ConfigError, ["train", "digits", "--epochs", "0"], "epochs"),
        (errors.ConfigError, ["train", "digits", "--lr", "-1"], "lr"),
        (errors.ConfigError, ["train", "digits", "--latent_dims", "100"], "100 latents"),
        (errors.ConfigError, ["train", "digits", "--limit", "999999"], "999999"),
        (errors.ImageSizeError, ["train", "digits", "--image-size", "7"], "at least 8"),
        (errors.ImageSizeError, ["train", "digits", "--image-size", "0x64"], "at least 8"),
        (errors.ImageSizeError, ["train", "digits", "--image-size", "-8"], "at least 8"),
        (errors.ModelFileError, ["generate", "no-such-model"], "pretrained"),
        (errors.ModelFileError, ["info", "mlx-vae"], "did you mean mlx-cvae?"),
        (errors.ModelFileError, ["train", "--resume", "nowhere"], "no run to resume"),
        (errors.ConfigError, ["generate", "mlx-cvae", "--count", "0"], "count"),
    ],
)
def test_bad_input(error, words, message, here, capsys):
    assert message in fails(capsys, error, *words)
    assert not any(here.iterdir())


@pytest.mark.parametrize(
    ("flag", "value", "actual"),
    [("--latent_dims", 9, 2), ("--max_filters", 64, 8), ("--nimg_channels", 3, 1)],
)
@pytest.mark.parametrize("command", ["generate", "reconstruct"])
def test_a_flag_that_contradicts_the_model_names_both_values(
    command, flag, value, actual, here, finished_run, capsys
):
    line = fails(capsys, errors.ModelMismatchError, command, finished_run.path, flag, value)
    assert f" {value} " in line
    assert f"which has {actual}" in line
    assert not any(here.iterdir())


def test_a_resumed_run_refuses_what_would_change_it(here, finished_run, capsys):
    line = fails(capsys, errors.UsageError, "train", "--resume", finished_run.path, "--lr", 0.5)
    assert "--lr 0.5" in line
    assert "has 0.001" in line
    line = fails(capsys, errors.UsageError, "train", "mnist", "--resume", finished_run.path)
    assert "digits" in line


@pytest.mark.parametrize("schedule", ["--schedule=cosine", "--kl-schedule=cyclical"])
def test_a_schedule_is_not_stretched_by_resuming(schedule, here, capsys):
    assert main(["train", "digits", *QUICK, schedule, "--out=run"]) == 0
    capsys.readouterr()
    fails(capsys, errors.UsageError, "train", "--resume", "run", "--epochs", 5)


def test_a_truncated_model_file(here, finished_run, capsys):
    (here / "m.safetensors").write_bytes(finished_run.model.read_bytes()[:999])
    assert "damaged" in fails(capsys, errors.ModelFileError, "info", "m.safetensors")


def test_an_unwritable_output(here, finished_run, capsys):
    (here / "file").write_text("")
    run = finished_run.path
    for words in (
        ["generate", run, "--outfile=file/a.png"],
        ["reconstruct", run, "--outdir=file/sub"],
        ["train", "digits", *QUICK, "--out=file/run"],
    ):
        assert "cannot" in fails(capsys, errors.OutputError, *words)
    assert (here / "file").read_text() == ""


def test_a_taken_run_folder(here, finished_run, capsys):
    line = fails(capsys, errors.RunExistsError, "train", "digits", "--out", finished_run.path)
    assert "--resume" in line


def test_a_picture_that_is_not_named_png(here, finished_run, capsys):
    fails(capsys, errors.OutputError, "generate", finished_run.path, "--outfile=a.jpg")
    assert not any(here.iterdir())


def test_a_folder_named_like_a_pretrained_model_does_not_hide_it(here):
    (here / "mlx-cvae").mkdir()
    assert main(["info", "mlx-cvae"]) == 0


@pytest.mark.parametrize("text", ["[]", "{}", "{"])
def test_a_damaged_run_folder(text, here, finished_run, capsys):
    shutil.copytree(finished_run.path, here / "run")
    (here / "run" / "config.json").write_text(text)
    assert "config.json" in fails(capsys, errors.ConfigError, "train", "--resume", "run")


def test_a_run_whose_settings_were_edited(here, finished_run, capsys):
    shutil.copytree(finished_run.path, here / "run")
    config = here / "run" / "config.json"
    config.write_text(text := config.read_text().replace('"max_filters": 8', '"max_filters": 16'))
    assert "checksum" in fails(capsys, errors.ConfigError, "train", "--resume", "run")
    config.write_text(text.replace('"crc32"', '"another"'))  # as runs of before it
    line = fails(capsys, errors.ModelFileError, "train", "--resume", "run")
    assert "was config.json edited?" in line


def test_a_failed_allocation_is_one_line(here, finished_run, capsys, monkeypatch):
    def full(*_args, **_kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")

    monkeypatch.setattr("convvae.evaluation.encode.generate", full)
    line = fails(capsys, errors.OutOfMemoryError, "generate", finished_run.path)
    assert "--count" in line


def test_any_other_error_of_ours_is_not_hidden(finished_run, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr("convvae.evaluation.encode.generate", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["generate", str(finished_run.path)])


def test_a_closed_pipe_is_quiet(finished_run):
    command = (
        f"{sys.executable} -c 'from convvae.cli.main import main; main()' info {finished_run.path}"
    )
    done = subprocess.run(
        f"{command} --json | true", shell=True, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_debug_adds_the_traceback(capsys):
    assert main(["info", "nope", "--debug"]) == errors.ModelFileError.exit_code
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("convvae: no model 'nope'")


def test_every_error_has_its_own_exit_code():
    codes = [kind.exit_code for kind in errors.kinds()]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    assert 1 not in codes


def test_evaluate_prints_the_numbers_and_writes_them(here, finished_run, capsys):
    words = ["evaluate", finished_run.path, "--limit", "20", "--samples", "5", "--json", "out.json"]
    assert main([str(word) for word in words]) == 0
    printed = capsys.readouterr().out
    found = json.loads((here / "out.json").read_text())
    assert found["protocol"]["images"] == 20
    assert found["protocol"]["samples"] == 5
    assert f"{found['bound']['mean']:.2f} ± {found['bound']['standard_error']:.2f}" in printed
    assert "bound of 5 weights" in printed
    assert found["importance_weighted"]["mean"] == pytest.approx(found["bound"]["mean"], abs=5)


def test_evaluate_says_what_a_cross_entropy_is_and_binarises_as_the_training_did(here, capsys):
    train = ["train", "digits", *QUICK, "--likelihood", "bernoulli", "--image-size", "16"]
    assert main([*train, "--out", "grey"]) == 0
    assert main([*train, "--binarize", "dynamic", "--binarize-seed", "7", "--out", "black"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "grey", "--limit", "9"]) == 0
    assert "cross-entropy" in capsys.readouterr().out
    assert main(["evaluate", "black", "--limit", "9", "--json", "a.json"]) == 0
    printed = capsys.readouterr().out
    assert "binarize_seed: 7" in printed
    assert "bits/dim" in printed
    assert main(["evaluate", "grey", "--limit", "9", "--binarize", "once", "--binarize-seed", "7",
                 "--json", "b.json"]) == 0  # fmt: skip
    capsys.readouterr()
    a, b = (json.loads((here / name).read_text()) for name in ("a.json", "b.json"))
    assert a["protocol"]["binarize_seed"] == b["protocol"]["binarize_seed"] == 7
    assert a["bound"] != b["bound"]


def test_evaluate_refuses_an_unwritable_file_before_the_work(
    here, finished_run, capsys, monkeypatch
):
    (here / "file").write_text("")
    words = ["evaluate", finished_run.path, "--limit", "5", "--json", "file/numbers.json"]
    monkeypatch.setattr(scorecard, "measure", lambda *_, **__: pytest.fail("it began"))
    assert "file" in fails(capsys, errors.OutputError, *words)


def test_evaluate_on_one_image_says_what_is_not_defined(finished_run, capsys):
    assert main(["evaluate", str(finished_run.path), "--limit", "1"]) == 0
    assert "not defined for one image" in capsys.readouterr().out


def test_evaluate_judges_latents_and_samples(here, finished_run, capsys):
    words = ["evaluate", finished_run.path, "--limit", "80", "--probe", "--quality", "70"]
    assert main([str(word) for word in [*words, "--json", "out.json"]]) == 0
    printed = capsys.readouterr().out
    found = json.loads((here / "out.json").read_text())
    assert 10 < found["probes"]["linear"]["mean"] * 100 < 100
    accuracy = 100 * found["probes"]["neighbours"]["mean"]
    assert f"nearest neighbours     {accuracy:.2f} ± " in printed
    quality = found["sample_quality"]
    assert quality["feature_space"] == "convvae-mnist-features-v1"
    assert "convvae-mnist-features-v1" in printed
    assert "FID" not in printed.replace("no FID", "")
    samples, train = quality["samples"], quality["training_images"]
    assert (samples["images"], train["images"], quality["real_images"]) == (70, 70, 80)
    assert samples["frechet_distance"] > train["frechet_distance"] > 0
    assert f"{samples['frechet_distance']:.2f}" in printed
    assert samples["kernel_distance"]["mean"] > train["kernel_distance"]["mean"]
    assert 0 < train["neighbourhoods"]["coverage"] <= 1
    assert found["ssim"] == {"not_defined": "images of 8x8 are smaller than its 11x11 window"}
    assert "SSIM                   not defined: images of 8x8" in printed


def test_evaluate_of_few_images_says_what_has_no_meaning(here, finished_run, capsys):
    words = ["evaluate", finished_run.path, "--limit", "1", "--quality", "1", "--json", "out.json"]
    assert main([str(word) for word in words]) == 0
    printed = capsys.readouterr().out
    for reason in ("at least 65 images of each set", "at least 20 images", "at least 6 real"):
        assert f"not defined: needs {reason}" in printed
    samples = json.loads((here / "out.json").read_text())["sample_quality"]["samples"]
    assert list(samples["neighbourhoods"]["recall"]) == ["not_defined"]


def test_evaluate_says_when_there_are_no_labels(here, finished_run, capsys, monkeypatch):
    load = data.load
    monkeypatch.setattr(data, "load", lambda *a, **k: replace(load(*a, **k), labels=None))
    assert main(["evaluate", str(finished_run.path), "--limit", "5", "--probe"]) == 0
    assert "label accuracy of the latents is not defined: no labels" in capsys.readouterr().out


def test_samples_of_a_binarised_model_are_compared_with_grey_images(here, finished_run, capsys):
    seen = []
    for binarize in ("none", "once"):
        words = ["evaluate", finished_run.path, "--limit", "70", "--quality", "70"]
        assert main([*map(str, words), "--binarize", binarize, "--json", f"{binarize}.json"]) == 0
        seen.append(json.loads((here / f"{binarize}.json").read_text()))
    assert "sample_quality: against the grey images" in capsys.readouterr().out
    assert seen[0]["bound"] != seen[1]["bound"]
    assert seen[0]["sample_quality"] == seen[1]["sample_quality"]


def test_inception_without_its_library_is_one_line(finished_run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    words = ["evaluate", finished_run.path, "--quality", "9", "--features", "inception"]
    assert "convvae[fidelity]" in fails(capsys, errors.MissingExtraError, *words)


def test_fewer_than_no_draws_are_refused(finished_run, capsys):
    line = fails(capsys, errors.ConfigError, "evaluate", finished_run.path, "--samples", "-1")
    assert "samples" in line


def test_compiling_without_a_compiler_is_one_line(here, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    words = ["train", "digits", *QUICK, "--compile", "on", "--out", "run"]
    assert "no-such-compiler" in fails(capsys, errors.DeviceError, *words)
    assert not (here / "run").exists()


def test_a_precision_that_does_not_exist_is_one_line(capsys):
    line = fails(capsys, errors.UsageError, "train", "digits", "--precision", "float16")
    assert "float16" in line


def test_images_and_bounds_from_a_density_fitted_to_the_codes(finished_run, tmp_path, capsys):
    for sampler in ("prior", "mixture"):
        words = ["generate", str(finished_run.path), "--sampler", sampler, "--count", "4"]
        assert main([*words, "--outfile", str(tmp_path / f"{sampler}.png")]) == 0
    assert "drawn from a mixture of its codes" in capsys.readouterr().out
    assert (tmp_path / "prior.png").read_bytes() != (tmp_path / "mixture.png").read_bytes()
    bounds = []
    for sampler in ("prior", "mixture"):
        words = ["evaluate", str(finished_run.path), "--sampler", sampler, "--limit", "50"]
        assert main([*words, "--overwrite", "--json", str(tmp_path / "numbers.json")]) == 0
        numbers = json.loads((tmp_path / "numbers.json").read_text())
        bounds.append(numbers["bound"]["mean"])
    assert numbers["protocol"]["prior"] == "fitted mixture"
    assert numbers["kl_per_latent"] is None
    assert bounds[1] != bounds[0]


def test_a_fitted_flow_without_its_library_is_one_line(finished_run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    assert main(["generate", str(finished_run.path), "--sampler", "flow"]) == 17
    assert "pip install 'convvae[flows]'" in capsys.readouterr().err


def test_a_limited_evaluation_draws_its_images_by_the_seed(finished_run, tmp_path, capsys):
    found = []
    for seed in ("0", "0", "1"):
        words = ["evaluate", str(finished_run.path), "--limit", "20", "--seed", seed]
        assert main([*words, "--overwrite", "--json", str(tmp_path / "numbers.json")]) == 0
        found.append(json.loads((tmp_path / "numbers.json").read_text())["squared_error"])
    assert found[0] == found[1] != found[2]
    assert main(["evaluate", str(finished_run.path), "--limit", "361"]) == 3
    assert "--limit is 361, but there are 360 images" in capsys.readouterr().err
