"""The commands about the packed file."""

import json

import pytest
import torch
from typer.testing import CliRunner

from compression.__main__ import app
from compression.checkpoint import file_of
from compression.data import load_cifar10
from compression.evaluation import evaluate
from compression.inputs import InputError
from compression.model import load_checkpoint, prunable_layers, save_checkpoint
from compression.packing import load_packed, save_packed
from compression.stored import StoredModel, load_stored


def run(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done


def test_a_model_goes_into_a_file_and_out_again(tmp_path):
    packed, out = tmp_path / "small.safetensors", tmp_path / "plain.safetensors"
    made = json.loads(run("pack", "resnet9-s/baseline", packed, "--bits", 4, "--json").stdout)
    assert made["total_bytes"] == packed.stat().st_size == sum(made["parts"].values())
    assert made["recipe"] == ["as trained", "k-means quantized to 4 bits"]
    assert json.loads(run("inspect", packed, "--json").stdout) == made
    told = run("inspect", packed).stdout
    assert f"{made['total_bytes']:,} bytes" in told and "Shannon's bound" in told
    shown = json.loads(run("unpack", packed, out, "--json").stdout)
    assert shown == {"checkpoint": str(out), "bytes": out.stat().st_size}
    plain = prunable_layers(load_checkpoint(out).model)
    for name, module in prunable_layers(load_packed(packed)).items():
        assert torch.equal(module.weight, plain[name].weight)
    images = load_cifar10("validation", "sample").head(50)
    found = evaluate(load_packed(packed), images.images, images.labels)
    words = ("--split", "validation", "--source", "sample", "--images", 50, "--json")
    for path in (packed, out):
        shown = json.loads(run("evaluate", path, *words).stdout)
        assert (shown["correct"], shown["images"]) == (found.correct, 50)
        assert shown["accuracy"] == found.accuracy
        assert shown["loss"] == pytest.approx(found.loss, rel=1e-4)


def test_what_a_file_cannot_hold_or_be_is_said_before_it_is_written(tmp_path):
    packed = tmp_path / "p.safetensors"
    save_packed(load_stored("resnet9-s/baseline"), packed)
    before = packed.read_bytes()
    for words, said in (
        (("pack", "resnet9-s/baseline", tmp_path / "caf\udce9.safetensors"), "name must be text"),
        (("unpack", packed, tmp_path), "checkpoint must be a file NAME.safetensors"),
        (("unpack", packed, tmp_path / "x.txt"), "checkpoint must be a file NAME.safetensors"),
        (("prune", packed, tmp_path / "x.safetensors", "--sparsity", 0.5), "got a packed file"),
    ):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert isinstance(done.exception, InputError) and said in str(done.exception)
    for steps, said in (
        (("\udce9",), "name and steps must be text"),
        (("\u4e00" * 160,) * 70, "fit into a header of 64 KiB, got one of"),
    ):
        with pytest.raises(InputError, match=said):
            save_packed(StoredModel("x", steps, load_stored(packed).parts), packed)
    assert packed.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


def test_a_files_own_words_move_no_cursor(tmp_path):
    packed = tmp_path / "p.safetensors"
    words = ("\x1b[2Jgone", "a\non disk: 1 byte")
    save_packed(StoredModel("x", words, load_stored("resnet9-s/baseline").parts), packed)
    told = run("inspect", packed).stdout
    assert "\x1b" not in told and told.count("\non disk: ") == 1
    assert json.loads(run("inspect", packed, "--json").stdout)["recipe"] == list(words)


def test_a_checkpoint_that_is_quantized_already_is_packed_as_it_is(tmp_path):
    quantized, packed = tmp_path / "q.safetensors", tmp_path / "p.safetensors"
    run("quantize", "resnet9-s/baseline", quantized, "--bits", 2, "--source", "sample")
    made = json.loads(run("pack", quantized, packed, "--json").stdout)
    assert {layer["bits"] for layer in made["layers"]} == {2}
    assert made["total_bytes"] < 420_000


def test_a_size_is_asked_for_in_place_of_bits(tmp_path):
    quantized, packed = tmp_path / "q.safetensors", tmp_path / "p.safetensors"
    words = ("quantize", "resnet9-s/baseline", quantized, "--compensate", 32)
    made = json.loads(run(*words, "--max-kib", 250, "--source", "sample", "--json").stdout)
    assert made["steps"].startswith("as trained; quantized for 250 KiB; rounding errors made up")
    size = json.loads(run("pack", quantized, packed, "--json").stdout)["total_bytes"]
    assert 0.98 * 250 * 1024 < size <= 250 * 1024
    done = CliRunner().invoke(app, [*map(str, words), "--max-kib", "250", "--bits", "4"])
    assert str(done.exception) == "Either --max-kib, or --bits and --layer, can be given, got both."


def test_a_shipped_packed_file_goes_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = "packed/resnet9-s-30x"
    shown = json.loads(run("inspect", name, "--json").stdout)
    assert shown["total_bytes"] == file_of(name).stat().st_size
    run("unpack", name, "plain.safetensors")
    words = ("--source", "sample", "--images", 50, "--json")
    found = [
        json.loads(run("evaluate", path, *words).stdout)["correct"]
        for path in (name, "plain.safetensors", file_of(name))
    ]
    assert found[0] == found[1] == found[2]


def test_no_file_takes_the_place_of_the_one_that_it_is_made_of(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    plain, packed = tmp_path / "plain.safetensors", tmp_path / "packed.safetensors"
    model = load_checkpoint("resnet9-s/baseline").model
    save_checkpoint(model, plain, {})
    save_packed(load_stored(plain), packed)
    (tmp_path / "link.safetensors").symlink_to(plain)
    for words in (
        ("pack", plain, plain.name), ("pack", "link.safetensors", plain),
        ("pack", "./plain.safetensors", "link.safetensors"), ("unpack", packed, packed.name),
    ):  # fmt: skip
        before = plain.read_bytes(), packed.read_bytes()
        done = CliRunner().invoke(app, [str(word) for word in words])
        expected = f"The file to write must be another than {words[1]}, got the same."
        assert isinstance(done.exception, InputError) and str(done.exception) == expected
        assert before == (plain.read_bytes(), packed.read_bytes())


def test_a_packed_file_of_another_name_is_refused(tmp_path):
    done = CliRunner().invoke(app, ["pack", "resnet9-s/baseline", str(tmp_path / "small.zip")])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("The packed file must be named NAME.safetensors")
