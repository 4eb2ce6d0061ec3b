"""Packed files of hostile bytes are refused: cut, changed, forged, or asking for much."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from compression.checkpoint import save_checkpoint
from compression.inputs import InputError
from compression.packing import inspect_packed, is_packed, load_packed, save_packed
from compression.packing_file import PackedFormatError, signed
from compression.resnet9 import build_model, count_parameters
from compression.stored import load_stored
from tests import packing_cases

baseline = packing_cases.baseline
pruned = packing_cases.pruned
packed = packing_cases.packed


def with_header(content, change):
    """The file with `change(header)` done to its parsed header, signed again."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return signed(len(text).to_bytes(8, "little") + text + content[8 + length :])


def with_about(content, change):
    """The file with `change(about)` done to its metadata, signed again."""

    def rewrite(header):
        about = json.loads(header["__metadata__"]["packed"])
        change(about)
        header["__metadata__"]["packed"] = json.dumps(about)

    return with_header(content, rewrite)


def refused(tmp_path, content, match="."):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(PackedFormatError, match=match) as caught:
        load_packed(path)
    assert str(caught.value).count("\n") == 0


@pytest.fixture(scope="module")
def content(packed):
    return packed[1].read_bytes()


@pytest.mark.parametrize("name", ["classes", "mean", "std"])
def test_a_model_of_other_images_or_classes_is_refused(content, tmp_path, name):
    def change(about):
        about[name] = about[name][::-1]

    refused(tmp_path, with_about(content, change), f"the {name} that this program knows")


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    assert not is_packed(pipe)
    for path in (pipe, Path(os.devnull), tmp_path):
        with pytest.raises(PackedFormatError, match="must be a file that can be read"):
            load_packed(path)
    with pytest.raises(PackedFormatError, match="that does not read: .*embedded null"):
        load_packed("a\0b")


def test_the_home_folder_may_be_abbreviated(packed, monkeypatch):
    monkeypatch.setenv("HOME", str(packed[1].parent))
    assert is_packed(f"~/{packed[1].name}")
    assert load_stored(f"~/{packed[1].name}").layers
    save_packed(packed[0], "~/again.safetensors")
    assert packed[1].with_name("again.safetensors").read_bytes() == packed[1].read_bytes()


def test_truncated_files_are_refused(content, tmp_path):
    for length in (0, 1, 7, 8, 9, 100, 2000, len(content) // 2, len(content) - 1):
        refused(tmp_path, content[:length])
    refused(tmp_path, content + b"\0")


@settings(max_examples=2000, deadline=None)
@given(st.data())
def test_any_changed_byte_is_refused(content, tmp_path_factory, data):
    """Header, checksum (the last 32 bytes) and all of the file a third of the time each."""
    last = len(content) - 1
    end = st.one_of(st.integers(0, 2100), st.integers(last - 31, last), st.integers(0, last))
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(end)] ^= data.draw(st.integers(1, 255))
    if bytes(changed) != content:
        refused(tmp_path_factory.getbasetemp(), bytes(changed))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changes_under_a_true_checksum_never_crash(content, tmp_path_factory, data):
    """Somebody who can sign: refused, or a network of finite numbers with the right shapes."""
    changed = bytearray(content)
    length = int.from_bytes(content[:8], "little")
    places = st.one_of(st.integers(8, 7 + length), st.integers(0, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(places)] ^= data.draw(st.integers(1, 255))
    try:
        forged = signed(bytes(changed))
    except (PackedFormatError, ValueError, KeyError, TypeError, RecursionError):
        return
    path = tmp_path_factory.getbasetemp() / "forged.safetensors"
    path.write_bytes(forged)
    try:
        model = load_packed(path)
    except PackedFormatError:
        return
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert sum(inspect_packed(path).parts.values()) == len(forged)


@pytest.mark.parametrize(
    ("version", "text"),
    [(2, "got version 2: it takes a later version of this program."), (0, "got version 0.")],
)
def test_another_version_says_so(content, tmp_path, version, text):
    other = with_about(content, lambda about: about.update(version=version))
    refused(tmp_path, other, re.escape(f"must be of format version 1, {text}") + "$")


def test_what_a_network_of_its_preset_does_not_have_is_refused(content, tmp_path):
    def more(header):
        end = max(e["data_offsets"][1] for name, e in header.items() if name != "__metadata__")
        header["more"] = {"dtype": "U8", "shape": [4096], "data_offsets": [end, end + 4096]}

    longer = with_header(content + bytes(4096), more)
    refused(tmp_path, longer, "must hold only the tensors of its network, got 'more'")
    with pytest.raises(PackedFormatError, match="only the tensors of its network"):
        inspect_packed(tmp_path / "bad.safetensors")
    named = with_about(content, lambda about: about["layers"].update(more=[4, 0]))
    refused(tmp_path, named, "must hold only the layers of its network, got 'more'")


def test_other_safetensors_files_are_told_what_they_are(content, tmp_path):
    save_checkpoint(build_model(), tmp_path / "checkpoint.safetensors", {})
    with pytest.raises(PackedFormatError, match="got a checkpoint: `python -m compression pack`"):
        load_packed(tmp_path / "checkpoint.safetensors")
    arrays = {"x": np.zeros(3, np.uint8)}
    refused(tmp_path, save(arrays), "metadata entry 'packed', got a file without metadata.$")
    refused(tmp_path, save(arrays, {"a": "b"}), r"metadata entry 'packed', got \['a'\].$")
    refused(tmp_path, save(arrays, {"packed": '{"version": 1}'}), "the classes that this program")
    entries = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    refused(tmp_path, save(arrays, entries), "it has no checksum")


def test_a_home_that_nobody_has_is_one_sentence(packed):
    for read in (load_packed, inspect_packed, load_stored):
        with pytest.raises(InputError, match="got (a|'~nobody-x/a')"):
            read("~nobody-x/a")


def swollen(content, size_bytes):
    """The file, truly signed, with so many bytes more in one layer's index."""
    tensors = load(content)
    tensors["conv1.index"] = np.append(tensors["conv1.index"], np.zeros(size_bytes, np.uint8))
    length = int.from_bytes(content[:8], "little")
    return signed(save(tensors, json.loads(content[8 : 8 + length])["__metadata__"]))


def test_what_no_network_needs_is_refused_by_its_size(content, tmp_path):
    """A byte and a float32 a weight are a sound file's most; an index takes a byte a weight."""
    most = 5 * count_parameters(build_model("resnet9-s"))
    refused(tmp_path, swollen(content, most + 2**18), r"at most 8.0 MiB .* got 8.4 MiB")
    refused(tmp_path, swollen(content, 2**16), "conv1.index with at most .* of uint8")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process as Linux does")
def test_a_hostile_file_takes_little_memory(content, tmp_path):
    """Loaded where only little more may be taken than a sound file needs."""

    def claim(header):
        header["conv3.index"]["shape"] = [2**50]
        header["conv3.index"]["data_offsets"][1] = 2**50

    def count(header):
        about = json.loads(header["__metadata__"]["packed"])
        about["layers"]["conv3"] = [32, None]
        header["__metadata__"]["packed"] = json.dumps(about)

    hostile = [
        with_header(content, claim),
        with_header(content, count),
        (2**62).to_bytes(8, "little") + content[8:],
        b'{"a":' * 2**20,
        (2**16).to_bytes(8, "little") + b"[" * 2**16,
    ]
    for k, each in enumerate([content, *hostile]):
        (tmp_path / f"{k}.safetensors").write_bytes(each)
    with (tmp_path / "6.safetensors").open("wb") as file:
        file.truncate(2**40)  # of zeros that take no room on the disk
    (tmp_path / "7.safetensors").write_bytes(swollen(content, 120 * 2**20))
    script = (
        "import resource, sys\n"
        "from compression.packing import load_packed, PackedFormatError\n"
        "load_packed(sys.argv[1])\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 2**27,) * 2)\n"
        "for path in sys.argv[2:]:\n"
        "    try:\n"
        "        load_packed(path)\n"
        "    except PackedFormatError:\n"
        "        continue\n"
        "    sys.exit(path)\n"
    )
    paths = [str(tmp_path / f"{k}.safetensors") for k in range(len(hostile) + 3)]
    ran = subprocess.run(
        [sys.executable, "-c", script, *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a.update(preset="resnet99"), "a known preset, got 'resnet99'"),
        (lambda a: a.update(preset="resnet9"), "biases and batch-norm|index of conv1"),
        (lambda a: a.pop("layers"), "layers and a recipe"),
        (lambda a: a["layers"].pop("conv3"), "bits and zero code of conv3"),
        (lambda a: a["layers"].update(conv3=[9, 0]), "bits and zero code of conv3"),
        (lambda a: a["layers"].update(conv3=[4, 1]), "codebook of conv3, 0 at its zero code"),
        (lambda a: a["layers"].update(conv3=[2, None]), "conv3.codebook with at most 4"),
        (
            lambda a: a["layers"].update(conv3=[32, None]),
            "only the tensors .* got 'conv3.codebook'",
        ),
        (lambda a: a.update(version="one"), "names no version"),
        (lambda a: a.update(recipe=["half of a character: \ud800"]), "one that does not read"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(content, tmp_path, change, match):
    refused(tmp_path, with_about(content, change), match)


def test_a_tensor_that_is_missing_or_of_another_type_is_refused(content, tmp_path):
    tensors = load(content)
    del tensors["conv3.index"]
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])["__metadata__"]
    refused(tmp_path, signed(save(tensors, entries)), "conv3.index .* got none")

    def retype(header):
        entry = header["conv3.codebook"]
        entry["dtype"], entry["shape"] = "U8", [entry["data_offsets"][1] - entry["data_offsets"][0]]

    refused(tmp_path, with_header(content, retype), "conv3.codebook .* got uint8")

    for kind in ("F8_E5M2", "F8_E4M3", "I8", "BOOL"):  # as many bytes, the first two not numpy's

        def rare(header, kind=kind):
            header["conv3.index"]["dtype"] = kind

        match = "tensor of type 'F8" if kind.startswith("F8") else "conv3.index .* got (int8|bool)"
        refused(tmp_path, with_header(content, rare), match)


def test_a_header_that_asks_for_much_is_refused_unread(content, tmp_path):
    refused(tmp_path, (2**40).to_bytes(8, "little") + content[8:], "at most 64 KiB")

    def claim(header):
        header["conv3.index"]["shape"] = [2**50]
        header["conv3.index"]["data_offsets"][1] = 2**50

    refused(tmp_path, with_header(content, claim), "does not read")


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(PackedFormatError, match="must be a file that can be read, got nothing"):
        load_packed(tmp_path / "nothing.safetensors")
    with pytest.raises(PackedFormatError, match="must be a file that can be read"):
        load_packed(tmp_path)
    refused(tmp_path, b"PK\3\4" + bytes(100), "must begin with a safetensors header")
