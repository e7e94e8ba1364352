import sys

import pytest
import torch

from convvae import runtime
from convvae.errors import DeviceError

CPU = torch.device("cpu")


def test_noise_is_a_function_of_seed_stream_and_position():
    draw = runtime.noise((2, 3), 7, "train", 128)
    assert torch.equal(draw, runtime.noise((2, 3), 7, "train", 128))
    for other in [(8, "train", 128), (7, "evaluate", 128), (7, "train", 256)]:
        assert not torch.equal(draw, runtime.noise((2, 3), *other))


def test_noise_is_standard_normal_across_positions():
    draws = torch.cat([runtime.noise((64,), 0, "train", place) for place in range(2000)])
    assert abs(draws.mean().item()) < 0.02
    assert abs(draws.std().item() - 1) < 0.02


def test_the_key_of_a_draw_has_the_32_bits_that_torch_takes():
    """What `runtime.generator` says of chance repetitions hangs on it, and every saved run does."""
    key = 0x1234_5678
    low, high, other = (
        torch.randn(3, generator=torch.Generator().manual_seed(seed))
        for seed in (key, key + (5 << 32), key + 1)
    )
    assert torch.equal(low, high)
    assert not torch.equal(low, other)
    drawn = runtime.noise((2,), 7, "train", 128).tolist()
    assert drawn == pytest.approx([0.158559218, -0.172749996], rel=1e-5)


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    runtime.noise((5,), 0, "train", 0)
    with runtime.seeded(3, "weights"):
        torch.randn(4)
    assert torch.equal(before, torch.get_rng_state())


def test_seeded_blocks_repeat():
    draws = []
    for seed in (3, 3, 4):
        with runtime.seeded(seed, "weights"):
            draws.append(torch.randn(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_devices_by_name():
    assert runtime.pick_device("cpu") == CPU
    assert runtime.pick_device("auto").type in ("cpu", "cuda", "mps")
    assert "threads" in runtime.describe_device(CPU)


def test_an_absent_device_names_those_present(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"'cuda' is not available.*cpu"):
        runtime.pick_device("cuda")
    with pytest.raises(DeviceError, match="'tpu' is not known"):
        runtime.pick_device("tpu")


def test_versions_name_what_a_result_depends_on():
    assert {"python", "convvae", "torch", "numpy"} <= runtime.versions().keys()


@pytest.mark.parametrize(
    ("able", "precision"),
    [({}, "float32"), ({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16")],
)
def test_auto_is_bfloat16_where_the_processor_has_it(able, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert runtime.pick_precision("auto", CPU) == precision
    for name in ("float32", "bfloat16"):
        assert runtime.pick_precision(name, CPU) == name
    assert runtime.pick_precision("auto", torch.device("mps")) == "float32"


def test_a_gpu_without_bfloat16_refuses_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    cuda = torch.device("cuda")
    assert runtime.pick_precision("auto", cuda) == "float32"
    with pytest.raises(DeviceError, match="`precision='float32'`"):
        runtime.pick_precision("bfloat16", cuda)


def test_autocast_computes_in_its_precision():
    a = torch.ones(2, 2)
    with runtime.autocast(CPU, "bfloat16"):
        assert (a @ a).dtype == torch.bfloat16
    with runtime.autocast(CPU, "float32"):
        assert (a @ a).dtype == torch.float32


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch):
    calls = {}

    class Library:
        @staticmethod
        def mallopt(parameter, value):
            calls[parameter] = value

    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda _name: Library)
    runtime.keep_freed_memory()
    assert calls == {-1: 1 << 30, -3: 1 << 30}
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda _name: object())
    runtime.keep_freed_memory()
    assert len(calls) == 2


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match=r"no-such-compiler is not there; install it, .*off"):
        runtime.compile_networks(torch.nn.Linear(1, 1))


def test_every_network_is_compiled(monkeypatch):
    asked = []
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: asked.append(self))
    networks = [torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)]
    runtime.compile_networks(*networks)
    assert asked == networks


def test_without_a_gpu_side_work_runs_at_once(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = []
    runtime.on_side_stream(lambda: done.append(1))
    assert done == [1]
