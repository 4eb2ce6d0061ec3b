"""Files that a stranger may send instead of a checkpoint, and names of none: each is refused."""

import json
import os
import pickle
import random
import struct
import zipfile

import pytest
import torch

from compression import checkpoint
from compression.checkpoint import MAX_HEADER_BYTES, load_checkpoint
from compression.inputs import InputError
from compression.presets import SHIPPED
from tests import checkpoint_cases
from tests.checkpoint_cases import rewrite

model = checkpoint_cases.model
whole = checkpoint_cases.whole
path = checkpoint_cases.path


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


def refusal(path):
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text
    assert " must " in text and ", got " in text and text.endswith(".")
    return text


@pytest.mark.parametrize(
    "name",
    ["nowhere", "resnet9-s/other", "../resnet9-s/baseline", "a\0b", "~nobody-x/a", "x" * 5000],
)
def test_an_unknown_name_lists_the_shipped_ones(name):
    text = refusal(name)
    assert text.startswith(f"checkpoint must be one of {', '.join(SHIPPED)}, or ")


@pytest.mark.parametrize("name", [None, "", 5, b"resnet9-s/baseline", ["resnet9-s/baseline"]])
def test_what_is_no_name_is_refused(name):
    assert refusal(name).startswith("checkpoint must be a name or a path, got ")


def test_a_folder_is_no_checkpoint(tmp_path):
    assert "or the path of a safetensors file, got " in refusal(tmp_path)


def test_a_file_that_may_not_be_read(monkeypatch, whole):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoint, "_check_header", denied)
    assert "got one that does not read ([Errno 13] Permission denied)." in refusal(whole)


def test_a_huge_file_is_refused_by_its_size(path):
    with path.open("wb") as file:
        file.truncate(257 * 2**20)
    assert refusal(path) == "checkpoint must be at most 256 MiB, got 257 MiB."


def test_truncated_anywhere_it_is_refused(whole, path):
    content = whole.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    places = random.Random(0)
    sizes = [*range(17), *places.sample(range(17, header), 150), header - 1, header, header + 1]
    sizes += [*places.sample(range(header, len(content)), 10), len(content) - 1]
    for size in sizes:
        path.write_bytes(content[:size])
        assert "must be a whole safetensors file" in refusal(path), size


def test_longer_than_declared_it_is_refused(whole, path):
    path.write_bytes(whole.read_bytes() + b"\0")
    assert "must be a whole safetensors file" in refusal(path)


def test_changed_bytes_of_the_header_never_break_the_loader(whole, path):
    content = whole.read_bytes()
    header = int.from_bytes(content[:8], "little")
    draw, refused = random.Random(1), 0
    for _ in range(60):
        changed = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            changed[draw.randrange(8 + header)] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            load_checkpoint(path)
        except InputError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 10**8, MAX_HEADER_BYTES + 1])
def test_a_giant_declared_header_is_not_parsed(path, length):
    path.write_bytes(struct.pack("<Q", length) + b"{}" * 100)
    assert "whose header has at most 4 MiB, got another file, or a longer header." in refusal(path)


@pytest.mark.parametrize("protocol", [0, 2, 4, pickle.HIGHEST_PROTOCOL])
def test_a_pickle_is_never_opened(path, tmp_path, protocol):
    made = tmp_path / "made"
    path.write_bytes(pickle.dumps({"state": Bomb(made)}, protocol) + bytes(20))
    text = refusal(path)
    assert ("got a pickle (a .pt or .pth file)" in text) == (protocol >= 2)
    assert not made.exists()
    pickle.loads(path.read_bytes())
    assert made.is_dir()


def test_a_checkpoint_of_torch_save_is_a_pickle_and_never_opened(path, model, tmp_path):
    made = tmp_path / "made"
    torch.save(model.state_dict() | {"more": Bomb(made)}, path)
    assert zipfile.is_zipfile(path)
    assert "got a pickle (a .pt or .pth file): those can run code" in refusal(path)
    assert not made.exists()
    with path.open("rb") as file:
        torch.load(file, weights_only=False)
    assert made.is_dir()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"PK", b"GIF89a" + bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(100)]
)
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    assert "sent.safetensors must be a" in refusal(path)


def test_other_shapes_are_refused(whole, path):
    def change(tensors):
        tensors["conv1.conv.weight"] = torch.zeros(32, 3, 5, 5)

    assert refusal(rewrite(whole, path, change)) == (
        "tensor conv1.conv.weight in sent.safetensors must have shape (32, 3, 3, 3), "
        "got (32, 3, 5, 5)."
    )


def test_as_many_numbers_in_another_shape_are_refused(whole, path):
    def change(tensors):
        tensors["linear.weight"] = tensors["linear.weight"].T.contiguous()

    assert "must have shape (10, 256), got (256, 10)." in refusal(rewrite(whole, path, change))


def test_the_shapes_of_another_preset_are_refused(whole, path):
    metadata = {"preset": '"resnet9"'}
    assert "must have shape (64, 3, 3, 3), got (32, 3, 3, 3)." in refusal(
        rewrite(whole, path, metadata=metadata)
    )
    metadata = {"preset": '"resnet9-t2g3"'}
    assert "must hold the tensors of its preset, got a difference in " in refusal(
        rewrite(whole, path, metadata=metadata)
    )


def test_extra_and_missing_tensors_are_refused(whole, path):
    def extra(tensors):
        tensors["more"] = torch.zeros(1)

    def missing(tensors):
        del tensors["linear.bias"]

    expected = "sent.safetensors must hold the tensors of its preset, got a difference in {} and {}"
    assert refusal(rewrite(whole, path, extra)) == expected.format("'more'", "0 more.")
    assert refusal(rewrite(whole, path, missing)) == expected.format("'linear.bias'", "0 more.")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.bool, torch.complex64])
def test_other_types_are_refused(whole, path, dtype):
    def change(tensors):
        tensors["linear.bias"] = torch.zeros(10, dtype=dtype)

    text = refusal(rewrite(whole, path, change))
    assert "tensor linear.bias in sent.safetensors must be of type BF16 or F16 or F32, got" in text


def test_a_fractional_count_is_refused(whole, path):
    def change(tensors):
        tensors["conv1.norm.num_batches_tracked"] = torch.tensor(1.5)

    assert "num_batches_tracked in sent.safetensors must be of type I64, got F32." in refusal(
        rewrite(whole, path, change)
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["res2.first.conv.weight", "conv1.norm.running_var"])
def test_weights_that_are_not_finite_are_refused(whole, path, name, bad):
    def change(tensors):
        tensors[name].flatten()[-1:] = bad

    assert refusal(rewrite(whole, path, change)) == (
        f"tensor {name} in sent.safetensors must be finite, got NaN or infinity."
    )


def test_a_variance_below_zero_is_refused(whole, path):
    def change(tensors):
        tensors["conv1.norm.running_var"][3] = -0.5

    assert refusal(rewrite(whole, path, change)) == (
        "tensor conv1.norm.running_var in sent.safetensors must hold variances of at least 0, "
        "got -0.5."
    )


@pytest.mark.parametrize(
    ("metadata", "got"),
    [
        ({}, "nothing"),
        ({"format": "pt"}, "nothing"),
        ({"preset": '"resnet18"'}, "'resnet18'"),
        ({"preset": "null"}, "nothing"),
        ({"preset": "9"}, "9"),
        ({"preset": '["resnet9-s"]'}, "['resnet9-s']"),
        ({"preset": '{"a": 1}'}, "{'a': 1}"),
    ],
)
def test_a_missing_or_odd_preset_is_refused(whole, path, metadata, got):
    expected = "metadata of sent.safetensors must name a preset "
    expected += f"(resnet9-s, resnet9, resnet9-t2g3), got {got}."
    assert refusal(rewrite(whole, path, metadata=metadata)) == expected


@pytest.mark.parametrize(
    "value",
    ["", "text", "{", "resnet9-s", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, '"\\ud800"'],
    ids="empty,text,open,bare,deep list,deep object,long number,half character".split(","),
)
def test_metadata_that_is_no_json_is_refused(whole, path, value):
    for metadata in ({"preset": value}, {"preset": '"resnet9-s"', "curves": value}):
        text = refusal(rewrite(whole, path, metadata=metadata))
        assert text == "metadata of sent.safetensors must be JSON values, got text."


def test_a_header_may_not_point_two_tensors_at_the_same_bytes(whole, path):
    content = whole.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["conv1.norm.bias"]["data_offsets"] = header["conv1.norm.weight"]["data_offsets"]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    assert "must be a whole safetensors file" in refusal(path)
