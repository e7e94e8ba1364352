"""Trainings that several processes share, on this machine: the same as in one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convvae.config import TrainConfig
from convvae.errors import ConfigError, RanksError
from convvae.training.distributed import check_settings, launched, restarted
from convvae.training.ranks import Ranks

WORKER = Path(__file__).with_name("ranks.py")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def together(count, command, *, limit=120, **more):
    """Start `count` processes that meet on this machine; their exit codes and what they said."""
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | meet | {"RANK": str(rank), "WORLD_SIZE": str(count)} | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    said = [process.communicate(timeout=limit) for process in processes]
    return [process.returncode for process in processes], said


def training(out, *words):
    small = ["--epochs", "2", "--batch-size", "48", "--limit", "200", "--max-filters", "8"]
    small += ["--precision", "float32", "--no-report", "--no-preview", "--log-every", "1"]
    return ["-m", "convvae", "train", "digits", "--cpu", "--out", str(out), *small, *words]


def rows(run, event):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def values(nested):
    return [x for part in nested for x in values(part)] if isinstance(nested, list) else [nested]


def test_gradients_are_those_of_one_process(tmp_path):
    """Of a batch that two processes cannot halve, with shared statistics, in float64."""
    found = []
    for count in (1, 2):
        path = tmp_path / f"{count}.json"
        codes, said = together(count, [str(WORKER), "gradients", str(path), "11"])
        assert codes == [0] * count, said
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


def test_a_training_is_that_of_one_process(tmp_path):
    # Small steps, so that Adam does not blow up what rounding tells apart.
    codes, said = together(2, training(tmp_path / "two", "--lr", "1e-5"))
    assert codes == [0, 0], said
    assert said[1] == ("", "")  # the first process alone speaks
    codes, said = together(1, training(tmp_path / "one", "--lr", "1e-5"))
    assert codes == [0], said
    for event, name in (("log", "loss"), ("epoch", "train_loss"), ("epoch", "val_loss")):
        expected = [row[name] for row in rows(tmp_path / "one", event)]
        assert [row[name] for row in rows(tmp_path / "two", event)] == pytest.approx(
            expected, rel=2e-5
        )
    assert (tmp_path / "two" / "model.safetensors").exists()


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


def test_processes_that_disagree_end_with_one_line(tmp_path):
    command = [str(WORKER), "train", str(tmp_path / "run")]
    codes, said = together(2, command)
    assert codes == [ConfigError.exit_code] * 2
    lines = [line for _, errors in said for line in errors.splitlines() if "disagree" in line]
    assert lines
    assert "lr is 0.1 in process 0 and 0.2 in process 1" in lines[0]


def test_a_process_that_comes_alone_ends_with_one_line(tmp_path):
    command = [str(WORKER), "alone", str(tmp_path / "run")]
    (code,), ((_, errors),) = together(1, command)
    assert code == RanksError.exit_code
    assert "another process ended or cannot be reached" in errors


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
