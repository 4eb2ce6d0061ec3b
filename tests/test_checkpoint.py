"""Checkpoints: the round trip, half precision, shards, and the names that stand for files."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from compression import checkpoint
from compression.checkpoint import (
    PACKED,
    file_of,
    load_checkpoint,
    packed_names,
    save_checkpoint,
    save_shards,
)
from compression.inputs import InputError
from compression.model import build_model
from compression.presets import SHIPPED
from compression.stored import load_stored
from tests import checkpoint_cases
from tests.checkpoint_cases import METADATA, rewrite

model = checkpoint_cases.model
whole = checkpoint_cases.whole
path = checkpoint_cases.path


def test_the_round_trip_gives_the_same_bits(whole, model):
    loaded = load_checkpoint(whole)
    assert loaded.metadata == METADATA | {"preset": "resnet9-s"}
    assert not loaded.model.training
    assert loaded.model.preset == "resnet9-s"
    state = loaded.model.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name
        assert state[name].dtype == tensor.dtype


def test_text_and_path_are_the_same(whole):
    assert load_checkpoint(str(whole)).metadata == load_checkpoint(whole).metadata


def test_a_channels_last_model_is_saved_alike(path, whole, model):
    turned = copy.deepcopy(model).to(memory_format=torch.channels_last)
    save_checkpoint(turned, path, METADATA)
    saved = load_file(path)
    for name, tensor in load_file(whole).items():
        assert torch.equal(saved[name], tensor), name


def test_saving_makes_the_folder_and_leaves_nothing_beside(tmp_path, model):
    target = tmp_path / "a" / "b" / "c.safetensors"
    save_checkpoint(model, target, {})
    assert [file.name for file in target.parent.iterdir()] == ["c.safetensors"]
    assert load_checkpoint(target).metadata == {"preset": "resnet9-s"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_become_float32(whole, path, dtype, model):
    def halve(tensors):
        for name in [name for name, tensor in tensors.items() if tensor.is_floating_point()]:
            tensors[name] = tensors[name].to(dtype)

    weight = load_checkpoint(rewrite(whole, path, halve)).model.conv2.conv.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, model.conv2.conv.weight.to(dtype).float())


def test_shipped_names_stand_for_files(monkeypatch, tmp_path, model):
    monkeypatch.setattr(checkpoint, "FOLDER", tmp_path)
    save_checkpoint(model, tmp_path / "resnet9-s" / "gridmask.safetensors", {"recipe": "gridmask"})
    assert load_checkpoint("resnet9-s/gridmask").metadata["recipe"] == "gridmask"


def test_the_users_home_is_known(monkeypatch, tmp_path, whole):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.safetensors").write_bytes(whole.read_bytes())
    assert load_checkpoint("~/mine.safetensors").metadata["recipe"] == "baseline"


def test_a_shipped_checkpoint_in_several_files_is_taken_together(monkeypatch, tmp_path):
    model = build_model("resnet9-s", seed=3).eval()
    monkeypatch.setattr("compression.checkpoint.FOLDER", tmp_path)
    target = tmp_path / "resnet9-s" / "baseline.safetensors"
    files = save_shards(model, target, {"recipe": "x"}, shard_bytes=2**20)
    assert len(files) > 1 and all(file.stat().st_size < 1.3 * 2**20 for file in files)
    assert files[0].name == f"baseline-1-of-{len(files)}.safetensors"
    found = load_checkpoint("resnet9-s/baseline")
    assert found.metadata == {"recipe": "x", "preset": "resnet9-s"}
    for name, value in model.state_dict().items():
        wanted = value.half().float() if value.is_floating_point() else value
        assert torch.equal(found.model.state_dict()[name], wanted), name
    files[1].unlink()
    with pytest.raises(InputError, match="must be there in all of its files, got baseline-1-of-"):
        load_checkpoint("resnet9-s/baseline")


def test_a_file_in_several_loads_by_its_name(tmp_path):
    model = build_model("resnet9-s", seed=3).eval()
    files = save_shards(model, tmp_path / "a.b.safetensors", {}, shard_bytes=2**11)
    assert len(files) > 9
    found = load_checkpoint(tmp_path / "a.b.safetensors").model
    for name, value in model.state_dict().items():
        wanted = value.half().float() if value.is_floating_point() else value
        assert torch.equal(found.state_dict()[name], wanted), name
    (tmp_path / "a.b-1-of-2.safetensors").write_bytes(files[0].read_bytes())
    with pytest.raises(InputError, match=r"a\.b\.safetensors must be there in all of its files"):
        load_checkpoint(tmp_path / "a.b.safetensors")
    with pytest.raises(InputError, match="or the path of a safetensors file, got "):
        load_checkpoint(tmp_path / "none.safetensors")


def test_one_part_alone_is_said_to_be_one(tmp_path):
    model = build_model("resnet9-s", seed=3).eval()
    files = save_shards(model, tmp_path / "a.safetensors", {}, shard_bytes=2**20)
    expected = (
        f"{files[0].name} must be loaded with its other parts, by the name a.safetensors in the "
        f"folder that holds them all, got part 1 of {len(files)} alone."
    )
    for name in (files[0].name, "a-1-of-2.safetensors.x"):  # the other says nothing of parts
        (tmp_path / name).write_bytes(files[0].read_bytes())
        with pytest.raises(InputError) as caught:
            load_checkpoint(tmp_path / name)
        assert (str(caught.value) == expected) == (name == files[0].name)
    (whole,) = save_shards(model, tmp_path / "b.safetensors", {})
    assert load_checkpoint(whole).metadata == {"preset": "resnet9-s"}


def test_shipped_packed_names_stand_for_files_unless_there_is_such_a_path(
    monkeypatch, tmp_path, whole
):
    monkeypatch.chdir(tmp_path)
    (name, *_) = names = packed_names()
    assert (
        names and file_of(name) == file_of(Path(name)) == PACKED / f"{Path(name).name}.safetensors"
    )
    assert file_of("packed/none") == Path("packed/none")
    with pytest.raises(
        InputError, match=r"must be a checkpoint here, got a packed file: .* unpack"
    ):
        load_checkpoint(name)
    with pytest.raises(
        InputError, match=f"^checkpoint must be one of {', '.join(SHIPPED)}, or the"
    ):
        load_checkpoint("packed/none")
    with pytest.raises(
        InputError, match=f", {', '.join(names)}, or the path of a safetensors file"
    ):
        load_stored("packed/none")
    stored = load_stored(name)
    assert stored.name == Path(name).name and stored.file_bytes == file_of(name).stat().st_size
    (tmp_path / "packed").mkdir()
    (tmp_path / name).write_bytes(whole.read_bytes())
    assert file_of(name) == Path(name) and load_stored(name).file_bytes is None


def test_files_of_two_checkpoints_are_never_taken_together(tmp_path):
    first, second = (tmp_path / name for name in ("first.safetensors", "second.safetensors"))
    for seed, path in enumerate((first, second)):
        files = save_shards(
            build_model("resnet9-s", seed=seed), path, {"seed": seed}, shard_bytes=2**20
        )
    files[0].replace(tmp_path / files[0].name.replace("second", "first"))
    with pytest.raises(InputError, match="first-1-of-5.* must be of one checkpoint, got parts of"):
        load_checkpoint(first)


def test_no_checkpoint_is_left_that_would_be_loaded_in_place_of_the_new_files(model, tmp_path):
    whole = tmp_path / "net.safetensors"
    save_checkpoint(model, whole, {})
    with pytest.raises(InputError, match=r"net\.safetensors must be moved away before, since n"):
        save_shards(model, whole, {})
    assert list(tmp_path.iterdir()) == [whole]
    whole.unlink()
    files = save_shards(model, whole, {}, shard_bytes=2**20)
    assert save_shards(model, whole, {}, shard_bytes=2**20) == files  # the same are written anew
    with pytest.raises(InputError, match=rf"^{files[0].name}, .* must be moved away before"):
        save_shards(model, whole, {})


def test_a_file_that_cannot_be_written_is_an_error_of_the_system(monkeypatch, model, tmp_path):
    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="x.safetensors.part cannot be written: I/O error: No space"):
        save_checkpoint(model, tmp_path / "x.safetensors", {})
    assert list(tmp_path.iterdir()) == []
