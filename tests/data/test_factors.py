"""Factors of images of one's own: columns of their table."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from own_pictures import WHOLE, picture, write

from convvae import errors
from convvae.data import load, stream, with_factors
from convvae.data.own.factors import grouped

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def listed(tmp_path):
    """A table of 40 images with a column of each kind."""
    rows = [
        {
            "path": write(tmp_path / "all" / f"{number:02}.png", picture(number))
            .relative_to(tmp_path)
            .as_posix(),
            "label": "ab"[number % 2],
            "hue": ("red", "blue", "green")[number % 3],
            "turn": 90 * (number % 4),
            "size": 0.5 + number**2,
        }
        for number in range(40)
    ]
    return rows


def table(rows, name="list.csv"):
    if name.endswith(".csv"):
        with Path(name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return name
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), name)
    return name


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_columns_are_factors_of_the_images_that_the_table_lists(listed, name, capsys):
    images = load(table(listed, name), prepare=WHOLE)
    found = with_factors(name, images)
    assert found.factor_names == ("hue", "turn", "size")
    kinds = ["blue", "green", "red"]
    expected = [
        (kinds.index(row["hue"]), row["turn"] // 90, place // 4) for place, row in enumerate(listed)
    ]
    assert found.factors.tolist() == [list(row) for row in expected]
    said = capsys.readouterr().err
    assert "hue (3 categories), turn (4 numbers), size (40 numbers in 10 groups by rank)" in said


def test_those_that_are_named_are_taken_for_some_of_the_images(listed):
    images = load(table(listed), "test").some(5, seed=0)
    assert len(images) < 10
    found = with_factors("list.csv", images, ["turn", "label", "turn"])
    assert found.factor_names == ("turn", "label")
    numbers = [int(Path(name).stem) for name in images.names]
    # Of the values of these images alone.
    turns = torch.tensor([number % 4 for number in numbers]).unique(return_inverse=True)[1]
    assert torch.equal(found.factors[:, 0], turns)


def test_groups_hold_equal_shares_and_equal_numbers_stay_together():
    random = np.random.default_rng(0)
    found = grouped(random.lognormal(sigma=4, size=1000))
    assert np.bincount(found).tolist() == [100] * 10
    # Most numbers are the same: they are one group, and the others are not put with it.
    found = grouped(np.array([0.0] * 90 + [*np.arange(1.0, 31.0)]))
    assert len(set(found[:90])) == 1
    assert found[90] > found[0]
    low = grouped(np.array([*np.arange(30.0), *[50.0] * 90]))
    assert low[29] < low[30]


@pytest.mark.parametrize(
    ("change", "wanted", "error", "says"),
    [
        ({}, ["hues"], errors.UsageError, r"no column 'hues' .*did you mean hue\?\); it has path,"),
        ({"size": ""}, ["size"], errors.CorruptDataError, r"nothing in .* size for 1 of 40 images"),
        ({"hue": "NA"}, [], errors.CorruptDataError, "first of them all/07.png; fill it in"),
        ({"turn": "nan"}, ["turn"], errors.CorruptDataError, "nothing in the column turn"),
        ({"path": "all/08.png"}, ["hue"], errors.CorruptDataError, "all/08.png' in several rows"),
    ],
)
def test_what_is_no_factor_is_refused(listed, change, wanted, error, says):
    listed[7] |= change
    images = load(table(listed), prepare=WHOLE)
    with pytest.raises(error, match=says):
        with_factors("list.csv", images, wanted)


def test_a_table_of_paths_and_a_folder_have_none(listed):
    images = load(table([{"path": row["path"]} for row in listed]), prepare=WHOLE)
    with pytest.raises(errors.UsageError, match="no columns beside path; add one for each"):
        with_factors("list.csv", images)
    with pytest.raises(errors.UsageError, match="those of all are not; the data set sprites"):
        with_factors("all", load("all", prepare=WHOLE))


def test_factors_of_a_published_set_are_chosen_by_name():
    images = load("sprites", "test")
    found = with_factors("sprites", images, ["y", "shape"])
    assert found.factor_names == ("y", "shape")
    assert torch.equal(found.factors, images.factors[:, [4, 0]])
    with pytest.raises(errors.UsageError, match="sprites has no factor 'colour'; it has shape, sc"):
        with_factors("sprites", images, ["colour"])


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_columns_are_read_as_words_and_follow_the_images(listed, name):
    prepare = replace(WHOLE, split="0.3", columns=("size", "hue"))
    for split in ("train", "test"):
        found = load(table(listed, name), split, prepare=prepare)
        assert list(found.columns) == ["size", "hue"]
        some = found.take(torch.tensor([2, 0]))
        for place, image in enumerate(some.names):
            row = next(row for row in listed if row["path"] == image)
            assert float(some.columns["size"][place]) == row["size"]
            assert some.columns["hue"][place] == row["hue"]
    whole = stream(name, "all", prepare=prepare)
    assert len(whole.columns["hue"]) == 40
    assert len(whole.first(3).columns["hue"]) == 3


def test_columns_of_sprites_are_what_their_factors_mean():
    found = load(
        "sprites", "test", limit=9, prepare=replace(WHOLE, split="auto", columns=("scale",))
    )
    places = found.factors[:, found.factor_names.index("scale")].tolist()
    assert found.columns == {"scale": [str((3.5, 4.5, 5.5, 6.5)[place]) for place in places]}


def test_columns_that_are_not_there_or_not_whole_are_refused(listed):
    table(listed)
    with pytest.raises(
        errors.ConfigError, match=r"list.csv has no column 'siz' \(did you mean size"
    ):
        load("list.csv", prepare=replace(WHOLE, columns=("siz",)))
    listed[7]["hue"] = ""
    table(listed)
    with pytest.raises(errors.CorruptDataError, match="nothing in the column hue for 1 of 40"):
        load("list.csv", prepare=replace(WHOLE, columns=("hue",)))
    for source in (load, stream):
        with pytest.raises(errors.ConfigError, match="no column 'size'; it has none but label"):
            source("mnist", "test", prepare=replace(WHOLE, split="auto", columns=("size",)))
    with pytest.raises(errors.ConfigError, match="all has no column 'size'; it has none but label"):
        load("all", prepare=replace(WHOLE, columns=("size",)))
