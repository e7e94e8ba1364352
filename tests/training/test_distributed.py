"""Trainings that several processes share, on this machine: the same as in one process."""

import json
import shutil

import pytest
import torch
from torch.distributed import TCPStore

from convvae.config import TrainConfig
from convvae.errors import ConfigError, RanksError, UsageError
from convvae.training.distributed import check_settings, launched, restarted
from convvae.training.ranks import Ranks
from tests.faults.together import Together

SMALL = (
    *("digits", "--cpu", "--epochs", "3", "--batch-size", "12", "--limit", "50"),
    *("--max-filters", "8", "--latent-dims", "2", "--precision", "float32", "--validation", "0.2"),
    *("--no-report", "--no-preview", "--log-every", "1", "--lr", "1e-5"),
)
"""Forty images: three batches and a smaller one. At small steps, Adam does not blow up rounding."""


@pytest.fixture(scope="module")
def together():
    with Together() as started:
        yield started


@pytest.fixture(scope="module")
def whole(together, tmp_path_factory):
    """A training in one process that nothing befalls, and the images of its steps."""
    folder = tmp_path_factory.mktemp("whole")
    ended = together.run(1, "train", folder / "seen", "", -1, *SMALL, "--out", folder / "run")
    assert ended.codes == [0], ended
    return folder / "run", steps(folder, 1)


def steps(folder, count):
    """The images of the steps of so many processes, a list per step."""
    seen = [json.loads((folder / f"seen-{rank}").read_text()) for rank in range(count)]
    return [[place for part in parts for place in part] for parts in zip(*seen, strict=True)]


def rows(run, event):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def values(nested):
    return [x for part in nested for x in values(part)] if isinstance(nested, list) else [nested]


def check_same(run, other):
    """That two trainings recorded the same, as far as sums that are rounded otherwise allow."""
    for event, name in (("log", "loss"), ("epoch", "train_loss"), ("epoch", "val_loss")):
        expected = [row[name] for row in rows(run, event)]
        assert len(expected) == {"log": 12, "epoch": 3}[event]
        assert [row[name] for row in rows(other, event)] == pytest.approx(expected, rel=2e-5)


def test_gradients_are_those_of_one_process(together, tmp_path):
    """Of a batch that two processes cannot halve, with shared statistics, in float64."""
    found = []
    for count in (1, 2):
        path = tmp_path / f"{count}.json"
        ended = together.run(count, "gradients", path, 11)
        assert ended.codes == [0] * count, ended
        found.append(json.loads(path.read_text()))
    one, two = found
    for network, expected in one.items():
        assert two[network].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                torch.tensor(values(two[network][name])),
                torch.tensor(values(value)),
                rtol=1e-6,
                atol=1e-9,
            )


def test_a_training_may_be_stopped_and_continued_by_other_numbers_of_processes(
    together, whole, tmp_path
):
    """Begun by two; one of them is told to stop in the second epoch; continued by one, three, four.

    Every image of an epoch is seen once, in the order of the training that nothing befell.
    """
    run, order = whole
    for epoch in range(3):
        seen = sorted(place for step in order[4 * epoch : 4 * epoch + 4] for place in step)
        assert len(set(seen)) == len(seen) == 40
    begun = tmp_path / "begun"
    begun.mkdir()
    ended = together.run(
        2, "train", begun / "seen", "told to stop", 5, *SMALL, "--out", begun / "run"
    )
    assert ended.codes == [130, 130], ended
    assert len(ended.lines) == 1
    assert "stopped in epoch 2 of 3 epochs" in ended.lines[0]
    assert (ended.out[1], ended.err[1]) == ("", "")  # the first process alone speaks
    first = steps(begun, 2)
    assert first == order[:6]
    for count in (1, 3, 4):
        folder = tmp_path / str(count)
        shutil.copytree(begun / "run", folder / "run")
        ended = together.run(
            count, "train", folder / "seen", "", -1, "--resume", folder / "run", "--no-report"
        )
        assert ended.codes == [0] * count, ended
        assert first + steps(folder, count) == order
        check_same(run, folder / "run")


def test_a_process_that_is_killed_ends_the_others_and_the_training_goes_on(
    together, whole, tmp_path
):
    words = (*SMALL, "--out", tmp_path / "run", "--save-every", "1e-9")
    ended = together.run(2, "train", tmp_path / "seen", "killed", 5, *words)
    assert ended.codes == [RanksError.exit_code, -9], ended
    assert len(ended.lines) == 1
    assert "another process ended or cannot be reached" in ended.lines[0]
    # As torchrun starts them again: nothing is lost but the work since the last save.
    again = {"TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_RESTART_COUNT": "1"}
    ended = together.run(2, "train", tmp_path / "seen", "", -1, *words, **again)
    assert ended.codes == [0, 0], ended
    assert steps(tmp_path, 2) == whole[1][5:]
    check_same(whole[0], tmp_path / "run")


def test_nobody_leaves_before_the_first_has_drawn(together, tmp_path):
    """torchrun starts no process again once one of them, on another machine, has ended well."""
    words = (*SMALL, "--epochs", "1", "--out", tmp_path / "run")
    ended = together.run(2, "killed_as_it_draws", *words)
    assert ended.codes == [-9, 23], ended
    assert len(ended.lines) == 1
    assert "another process ended" in ended.lines[0]


def test_a_process_that_is_not_heard_of_ends_the_others(together, tmp_path):
    words = (*SMALL, "--out", tmp_path / "run")
    ended = together.run(2, "train", tmp_path / "seen", "stands still", 5, *words, limit=15)
    assert ended.codes == [RanksError.exit_code, None], ended
    assert len(ended.lines) == 1
    assert "nothing has been heard of process 1" in ended.lines[0]


def test_images_are_encoded_by_two_processes(together, whole, tmp_path):
    images = ("encode", whole[0], "digits", "--limit", 100, "--cpu")
    ended = together.run(1, "command", *images, "--out", tmp_path / "one.npz")
    assert ended.codes == [0], ended
    words = (*images, "--shards", tmp_path / "s", "--shard-size", 32)
    ended = together.run(2, "command", *words)
    assert ended.codes == [0, 0], ended
    assert "all 4 shards are in" in "".join(ended.out)
    ended = together.run(
        1, "command", "merge", tmp_path / "s", "--out", tmp_path / "m.npz", "--cpu"
    )
    assert ended.codes == [0], ended
    assert (tmp_path / "m.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()
    ended = together.run(2, "command", *images, "--out", tmp_path / "two.npz")
    assert ended.codes == [UsageError.exit_code] * 2, ended
    assert ended.lines == [
        "convvae: 2 processes would write the same output; name a folder with --shards, to which "
        "each writes its part"
    ]


def test_shares_are_the_batch_once():
    for size in (7, 12):
        for count in (1, 2, 3, 4):
            parts = [list(range(size)[Ranks(rank, count).share(size)]) for rank in range(count)]
            assert [place for part in parts for place in part] == list(range(size))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_what_cannot_be_shared_is_refused():
    def config(**more):
        return TrainConfig(data="digits", **more)

    for more, says in (
        ({"batch_size": 50}, "a batch of 50 images cannot be divided among 3"),
        ({"batch_size": 48, "mmd": 1.0}, "mmd needs a batch as a whole"),
        ({"batch_size": 48, "objective": "beta-tc"}, "objective beta-tc"),
        ({"batch_size": 48, "rollbacks": 1}, "rollbacks"),
    ):
        with pytest.raises(ConfigError, match=says):
            check_settings(config(**more), Ranks(0, 3))


TRAIN = ("train", *SMALL, "--out", "new")
ENCODE = ("encode", "mlx-cvae", "digits", "--cpu", "--shards", "new")


@pytest.mark.parametrize(
    ("count", "job", "words", "says"),
    [
        (2, "another_rate", TRAIN, "lr is 0.1 in process 0 and 0.2 in process 1"),
        (2, "another_version", TRAIN, "versions is"),
        (2, "another_version", ENCODE, "torch is 2.0 in process 0 and 2.1 in process 1"),
        (2, "command", (*TRAIN, "--batch-size", "13"), "a batch of 13 images cannot be divided"),
        (3, "command", (*TRAIN, "--limit", "47"), "the last batch of an epoch has 2 images for 3"),
    ],
)
def test_processes_that_disagree_end_with_one_line(together, tmp_path, count, job, words, says):
    words = [tmp_path / "new" if word == "new" else word for word in words]
    ended = together.run(count, job, *words)
    assert ended.codes == [ConfigError.exit_code] * count, ended
    assert len(ended.lines) == 1, ended
    assert says in ended.lines[0]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "words", [("train", "digits", "--epoch", "3"), ("train", "digits", "--recipe", "nope")]
)
def test_a_wrong_line_is_said_once(together, words):
    ended = together.run(2, "command", *words)
    assert len(set(ended.codes)) == 1
    assert ended.codes[0]
    assert len(ended.lines) == 1, ended


@pytest.mark.parametrize(
    ("rank", "address"), [("0", "127.0.0.1"), ("1", "127.0.0.1"), ("1", "no-such-host.invalid")]
)
def test_processes_that_do_not_meet_end_with_one_line(together, tmp_path, rank, address):
    """One that comes alone, one whose first does not come, and an address that leads nowhere."""
    place = {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": address}
    ended = together.run(1, "impatient", "train", *SMALL, "--out", tmp_path / "run", **place)
    assert ended.codes == [RanksError.exit_code], ended
    assert len(ended.lines) == 1, ended
    assert "another process ended or cannot be reached" in ended.lines[0]
    assert "Traceback" not in ended.err[0]


def test_what_processes_of_before_left_in_torchruns_store_misleads_nobody(together):
    """The first would find the address of a second that is gone, and wait for it in vain."""
    store = TCPStore("127.0.0.1", 0, is_master=True)
    again = {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for late in (0, 0.5, 0.5, 0.5):
        ended = together.run(2, "meet", late, **again)
        assert ended.codes == [0, 0], ended


def test_slurms_variables_say_where_to_meet():
    slurm = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "7"}
    assert launched({}) is None
    assert launched({"WORLD_SIZE": "1"}) is None
    assert launched({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) is None
    found = launched(slurm | {"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"})
    assert found is not None
    assert (found["RANK"], found["WORLD_SIZE"]) == ("2", "4")
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("10.0.0.1", "20007")
    with pytest.raises(RanksError, match="MASTER_ADDR"):
        launched(slurm)


def test_torchruns_restart_finds_the_run_by_its_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(ConfigError, match="name one in `out`"):
        restarted(TrainConfig(data="digits"))
    config = TrainConfig(data="digits", out=tmp_path)
    assert restarted(config) is None
    (tmp_path / "resume.safetensors").touch()
    assert restarted(config) is None  # at the first start it is a run that is in the way
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restarted(config) == tmp_path
    # Killed before it saved anything, a run has its settings alone.
    (tmp_path / "resume.safetensors").unlink()
    assert restarted(config) is None
    (tmp_path / "config.json").touch()
    assert restarted(config) == tmp_path


class Machine(Ranks):
    """A process whose others are played: what they say is what it says."""

    asked = 0

    def all_of(self, value):
        self.asked += 1
        return [value] * self.count


@pytest.mark.parametrize(("place", "turn"), [(0, 0), (1, 1), (None, 1)])
def test_the_first_process_of_each_machine_prepares_what_the_others_find(place, turn):
    """The third of four processes, on the second machine, or where nobody says on which."""
    done = []
    slow = Machine(2, 4, place)
    ranks = Machine(2, 4, place, patient=slow)

    def action():
        done.append("action")
        return "found"

    found = ranks.in_turn(action, ranks.is_first_here, lambda: done.append("pass on"))
    assert found == "found"
    assert done.index("action") == turn
    assert (slow.asked, ranks.asked) == (2, 0), "decoding may take hours, and the others wait"
    assert sorted(done) == ["action", "pass on", "pass on"]
