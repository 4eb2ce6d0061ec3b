"""The commands about the packed file, and the course report from start to end on few images."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from compression.__main__ import app
from compression.inputs import InputError
from compression.model import load_checkpoint, prunable_layers
from compression.packing import load_packed
from compression.reproduction import Reproduction, markdown
from compression.reproduction_config import ReproductionConfig, load_config


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
    run("unpack", packed, out)
    plain = prunable_layers(load_checkpoint(out).model)
    for name, module in prunable_layers(load_packed(packed)).items():
        assert torch.equal(module.weight, plain[name].weight)
    words = ("--source", "sample", "--images", 50, "--json")
    by_either = [json.loads(run("evaluate", path, *words).stdout) for path in (packed, out)]
    assert by_either[0]["accuracy"] == by_either[1]["accuracy"]


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


def test_a_packed_file_of_another_name_is_refused(tmp_path):
    done = CliRunner().invoke(app, ["pack", "resnet9-s/baseline", str(tmp_path / "small.zip")])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("The packed file must be named NAME.safetensors")


ASSETS = Path(__file__).resolve().parent.parent / "assets" / "reproduce"
TINY = {
    "distil": True,
    "models": {"gridmask": ["resnet9-s/gridmask"]},
    "source": "sample", "train_images": 512, "validation_images": 30, "test_images": 50,
    "scan_images": 30, "levels": [0.3, 0.6], "recalibration_images": 50, "compensation_images": 50,
    "fine_tune_epochs": 1,
    "bits": [8, 2], "centroid_epochs": 1,
}  # fmt: skip


def test_the_whole_report_on_few_images_and_again_after_a_kill(tmp_path):
    config = ReproductionConfig(**TINY)
    run_once = Reproduction(config, tmp_path / "run", command="reproduce run")
    rows = run_once.run()
    names = [row["variant"] for row in rows]
    assert names[:4] == [
        "gridmask, dense", "gridmask, pruned", "gridmask, pruned, recalibrated",
        "gridmask, pruned, fine-tuned",
    ]  # fmt: skip
    assert "gridmask, pruned, 2 bits, trained" in names and len(names) == 20
    for row in rows:
        assert (tmp_path / "run" / row["file"]).stat().st_size == row["packed_bytes"]
        assert row["test_images"] == 50
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    assert content["rows"] == rows
    told = markdown(content)
    assert "74.44%" in told and "29.03 MiB" in told  # the course report's own
    assert (tmp_path / "run" / "results.md").read_text() == told

    content["rows"] = rows[:5]  # as if it had been killed after five rows
    (tmp_path / "run" / "results.json").write_text(json.dumps(content))
    again = Reproduction(config, tmp_path / "run").run()
    assert [row["variant"] for row in again] == names
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in rows]


def test_a_folder_of_another_run_is_refused(tmp_path):
    Reproduction(ReproductionConfig(**TINY), tmp_path)._write()
    with pytest.raises(InputError, match="must hold a run of the same config"):
        Reproduction(ReproductionConfig(**TINY | {"seed": 5}), tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("models = 3", "models must name at least one model, got 3"),
        ("[models]\ngridmask = []", "models.gridmask must be a list of recipes"),
        ('[models]\ngridmask = ["sgd"]', "models.gridmask must be one of baseline, "),
        ('compress = "other"', "compress must be one of baseline, gridmask, got 'other'"),
        ("bits = [9]", "bits must be a whole number from 1 to 8, got 9"),
        ("levels = 0.5", "levels must be a list of numbers, got 0.5"),
        ("epochs = 3", "config field must be one of models, .* got 'epochs'"),
        ("epochs = ", "config must be a TOML file"),
    ],
)
def test_a_config_that_does_not_fit_is_said(tmp_path, text, match):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=match):
        load_config(path)


@pytest.mark.parametrize("name", ["full", "quick", "shipped"])
def test_the_configs_in_assets_are_sound(name):
    config = load_config(ASSETS / f"{name}.toml")
    assert config.compress in config.models
