"""What the machine is said to be, and what a precision means on it."""

import subprocess

import pytest
import torch

from compression import hardware
from compression.hardware import autocast_dtype, default_device, has_bfloat16, machine_record
from compression.inputs import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("there", "auto"), [(True, torch.bfloat16), (False, None)])
def test_auto_is_bfloat16_where_the_processor_has_it(monkeypatch, there, auto):
    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: there)
    assert autocast_dtype("auto", CPU) is auto
    assert autocast_dtype("float32", CPU) is None


def test_bfloat16_is_refused_where_it_would_be_emulated(monkeypatch):
    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: False)
    with pytest.raises(InputError) as caught:
        autocast_dtype("bfloat16", CPU)
    text = str(caught.value)
    assert text.startswith("precision bfloat16 must be in the processor's hardware, got ")
    assert text.endswith(" without it: use auto or float32.")


@pytest.mark.parametrize("precision", ["float16", None, 32])
def test_an_unknown_precision_is_refused(precision):
    with pytest.raises(InputError, match="^precision must be one of auto, float32, bfloat16, got "):
        autocast_dtype(precision, CPU)


@pytest.mark.parametrize("probe", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_either_instruction_set_counts(monkeypatch, probe):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not has_bfloat16(CPU)
    monkeypatch.setattr(torch.cpu, probe, lambda: True)
    assert has_bfloat16(CPU)


def test_an_older_torch_without_the_probes_has_none(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not has_bfloat16(CPU)
    assert not has_bfloat16(torch.device("mps"))


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_device_is_the_fastest_that_is_there(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert default_device().type == expected


def test_the_record_names_the_machine_and_the_code():
    record = machine_record()
    assert record["torch"] == torch.__version__
    assert record["threads"] == torch.get_num_threads()
    assert all(record.values()), record


def test_outside_git_the_commit_is_unknown(monkeypatch):
    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert machine_record()["commit"] == "unknown"
