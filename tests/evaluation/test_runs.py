"""Training runs side by side: means and spreads over runs, and what does not compare."""

import statistics

import pytest

import convvae
from convvae import data, figures
from convvae.errors import ImageSizeError, ModelFileError, UsageError
from convvae.evaluation.runs import open_run


@pytest.fixture
def images():
    return data.load("digits", "test", limit=50)


def test_runs_of_one_recipe_are_a_mean_and_a_spread_over_the_runs(finished_run, run_like, images):
    seeds = [run_like(f"seed-{seed}", seed, seed=seed).path for seed in (1, 2)]
    other = run_like("other", 3, lr=0.02, seed=7).path
    found = convvae.compare([finished_run.path, other, *seeds], images)
    first, second = found.recipes
    assert [one.run.seed for one in first.runs] == [0, 1, 2]
    assert found.settings == {"lr": [0.001, 0.02]}
    bounds = [
        convvae.evaluate(convvae.load_model(path)[0], images).bound
        for path in (finished_run.path, *seeds, other)
    ]
    means = [bound.mean for bound in bounds]
    cell = first.cells["bound (ELBO)"]
    assert cell.mean == pytest.approx(statistics.fmean(means[:3]))
    assert cell.error == pytest.approx(statistics.stdev(means[:3]))
    # Alone, a run has the error over its images.
    assert second.cells["bound (ELBO)"] == pytest.approx(bounds[3])
    assert found.notes == []
    table = str(found)
    assert "A  " in table.splitlines()[0]
    assert table.splitlines()[0].endswith("(3 runs, seeds 0, 1, 2)")
    assert "error over the images of one run, and the standard deviation over the runs of" in table
    assert f"{cell.mean:.2f} ± {cell.error:.2f}" in table
    assert "SSIM" not in table, "of images of 8x8 there is none"


def test_speed_and_time_are_those_of_the_epochs(finished_run):
    run = open_run(finished_run.path)
    rows = [row for row in finished_run.read_metrics() if row["event"] == "epoch"]
    assert run.seconds == pytest.approx(sum(row["seconds"] for row in rows))
    assert run.images_per_second == pytest.approx(400 / run.seconds)
    assert run.epochs == 2


def test_a_table_has_every_run_and_the_mean(finished_run, run_like, images):
    again = run_like("again", 1, seed=1).path
    other = run_like("other", 2, beta=2.0).path
    lines = convvae.compare([finished_run.path, again, other], images).csv().splitlines()
    assert lines[0].startswith("recipe,run,seed,beta,bound (ELBO) [nats per image],bound (ELBO): ±")
    starts = [",".join(line.split(",")[:4]) for line in lines[1:]]
    assert starts == [
        f"A,{finished_run.path},0,1.0",
        f"A,{again},1,1.0",
        "A,mean of 2 runs,,1.0",
        f"B,{other},0,2.0",
    ]


def test_what_does_not_compare_is_said(finished_run, run_like, images):
    drawn = run_like("drawn", 1, likelihood="bernoulli", binarize="static", seed=1).path
    grey = run_like("grey", 1, likelihood="bernoulli").path
    longer = run_like("longer", 1, epochs=9).path
    twice = run_like("twice", 2).path
    found = convvae.compare([finished_run.path, drawn, grey, longer, twice], images)
    different, of, same_seed, short = found.notes
    assert "no bound or error compares: A, C, D: 1 x 8 x 8, as they are; B: 1 x 8 x 8," in different
    assert "A, D: densities; B: probabilities of black and white; C: a Bernoulli at grey" in of
    assert "runs of A have the same seed" in same_seed
    assert short == f"note: {longer} ended after epoch 2 of 9"
    figure = figures.compared(found)
    assert "no bound or error" in figure.get_supxlabel()
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_visible()]
    assert titles == ["bound (ELBO)", "squared error", "parameters", "time", "speed"]
    (points, *_) = figure.axes[0].lines
    assert points.get_xdata() == pytest.approx(
        [one.found.bound.mean for one in found.recipes[0].runs]
    )


def test_of_images_with_missing_pixels_the_observed_ones_count(finished_run, run_like):
    images = convvae.load_images("digits", "test", limit=30, mask="random:0.5")
    runs = [finished_run.path, run_like("other", 1, lr=0.5).path]
    found = convvae.compare(runs, images)
    one = found.recipes[0].runs[0]
    assert one.found.bound == convvae.evaluate(one.run.vae, images).bound
    assert "% of the pixels missing" in one.pixels
    with pytest.raises(UsageError, match="compares whole images, and pixels of these are missing"):
        convvae.compare(runs, images, quality=30)


def test_what_cannot_be_compared_is_refused(finished_run, run_like, images, tmp_path):
    one = str(finished_run.path)
    with pytest.raises(UsageError, match="one run alone compares with nothing"):
        convvae.compare([one], images)
    with pytest.raises(UsageError, match="is named twice"):
        convvae.compare([one, f"{one}/model.safetensors"], images)
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "mine.safetensors"
    alone.write_bytes(finished_run.model.read_bytes())
    with pytest.raises(ModelFileError, match=r"mine.safetensors is a model without a run"):
        convvae.compare([one, alone], images)
    unfinished = run_like("unfinished", 1)
    unfinished.metrics.write_text("")
    with pytest.raises(ModelFileError, match="has no finished epoch in "):
        convvae.compare([one, unfinished.path], images)
    with pytest.raises(ModelFileError, match="no model 'nowhere'"):
        convvae.compare([one, "nowhere"], images)
    with pytest.raises(ImageSizeError, match="do not fit a model of 1x28x28"):
        convvae.compare([one, "mnist-2d"], images)
