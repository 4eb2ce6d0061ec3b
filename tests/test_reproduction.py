"""The course report from start to end on few images, by its config file and its command."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compression import reproduction
from compression.__main__ import app
from compression.cli.reproduce import reproduce_command
from compression.hardware import machine_record
from compression.inputs import InputError
from compression.model import load_checkpoint
from compression.recipes import RECIPES
from compression.recorded_machine import machine_text
from compression.reproduction import Reproduction
from compression.reproduction_config import ReproductionConfig, load_config
from compression.reproduction_table import markdown
from compression.stored import load_stored

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "reproduce"
TWO_BITS = ("two-bits", "two-bits-mixed", "resnet9-two-bits-mixed")
TINY = {
    "distil": True,
    "models": {"gridmask": ["resnet9-s/gridmask"]},
    "source": "sample", "train_images": 128, "validation_images": 30, "test_images": 50,
    "scan_images": 30, "levels": [0.3, 0.6], "recalibration_images": 50, "compensation_images": 50,
    "fine_tune_epochs": 1,
    "bits": [8, 2], "centroid_epochs": 1,
}  # fmt: skip


def test_the_whole_report_on_few_images_and_again_after_a_kill(tmp_path, monkeypatch):
    config = ReproductionConfig(**TINY)
    run_once = Reproduction(config, tmp_path / "run", command="reproduce run")
    rows = run_once.run()
    names = [row["variant"] for row in rows]
    assert names[:4] == [
        "gridmask, dense", "gridmask, pruned", "gridmask, pruned, recalibrated",
        "gridmask, pruned, fine-tuned",
    ]  # fmt: skip
    assert "gridmask, pruned, 2 bits, trained" in names and len(names) == 20
    assert rows[3]["steps"].endswith("; distilled 1 epoch")
    trained = rows[names.index("gridmask, pruned, 2 bits, trained")]["steps"]
    assert "; centroids distilled 1 epoch: " in trained
    for row in rows:
        assert (tmp_path / "run" / row["file"]).stat().st_size == row["packed_bytes"]
        assert row["test_images"] == 50
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    assert content["rows"] == rows
    told = markdown(content)
    assert "74.44%" in told and "29.03 MiB" in told  # the course report's own
    assert (tmp_path / "run" / "results.md").read_text() == told

    lasted = content["seconds"]
    assert lasted > sum(row["seconds"] for row in rows) > 0

    assert not any("machine" in row for row in rows)
    content["rows"] = rows[:12]  # as if it had been killed in the middle, on another machine
    content["machine"] = content["machine"] | {"processor": "another", "commit": "0"}
    (tmp_path / "run" / "results.json").write_text(json.dumps(content))
    again = Reproduction(config, tmp_path / "run").run()
    assert [row["variant"] for row in again] == names
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in rows]
    assert [row.get("machine") for row in again] == [None] * 12 + [machine_record()] * 8
    told = (tmp_path / "run" / "results.md").read_text()
    first, then = machine_text(content["machine"]), machine_text(machine_record())
    assert f"on {first}; {then}, in " in told and first.startswith("another")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["seconds"] > lasted

    def never(*_, **__):
        raise AssertionError("what has its row was made again")

    for step in ("quantize", "quantize_compensated", "recalibrate_batch_norm", "fine_tune"):
        monkeypatch.setattr(reproduction, step, never)
    written = (tmp_path / "run" / "results.json").read_bytes()
    (tmp_path / "run" / "results.md").unlink()  # as if it had been killed before it was there
    assert [row["variant"] for row in Reproduction(config, tmp_path / "run").run()] == names
    assert (tmp_path / "run" / "results.json").read_bytes() == written  # its seconds too
    assert (tmp_path / "run" / "results.md").read_text() == told


def test_without_pruning_the_dense_model_alone_is_quantized(tmp_path):
    config = ReproductionConfig(**TINY | {"prune": False, "bits": [4], "centroid_epochs": 0})
    names = [row["variant"] for row in Reproduction(config, tmp_path).run()]
    assert names == [
        "gridmask, dense", "gridmask, dense, 4 bits", "gridmask, dense, 4 bits, recalibrated",
        "gridmask, dense, 4 bits, compensated",
    ]  # fmt: skip


def test_the_first_and_the_last_layer_are_spared(tmp_path):
    asked = {"prune": False, "bits": [2, 8], "first_last_bits": 8, "centroid_epochs": 0}
    rows = Reproduction(ReproductionConfig(**TINY | asked), tmp_path).run()
    spared, at_eight = rows[3], rows[6]
    assert spared["variant"] == "gridmask, dense, 2 bits, first and last 8, compensated"
    assert at_eight["variant"] == "gridmask, dense, 8 bits, compensated"
    layers = load_stored(tmp_path / spared["file"]).parts.layers
    found = {name: len(layer.codebook) for name, layer in layers.items()}
    assert found.pop("conv1") > 200 and found.pop("linear") > 200 and set(found.values()) == {4}


def test_models_are_trained_cycle_by_cycle_and_the_better_one_is_kept(tmp_path, monkeypatch):
    for name in ("baseline", "baseline-restart"):
        recipe = replace(RECIPES[name], epochs=1, batch_size=64, small_epochs=1, small_side=8)
        monkeypatch.setitem(RECIPES, name, recipe)
    few = {"models": {"baseline": ["baseline", "baseline-restart"]}}
    config = ReproductionConfig(**TINY | few | {"compress": "baseline"})
    said = []
    run_once = Reproduction(config, tmp_path, notify=said.append)
    kept = run_once.model("baseline")
    assert [text.partition(": epoch")[0] for text in said[:2]] == [
        "baseline, cycle 1", "baseline, cycle 2",
    ]  # fmt: skip
    names = ["baseline-1", "baseline-2", "baseline-mean"]
    assert sorted(path.stem for path in tmp_path.glob("*.safetensors")) == names
    found = {
        name: load_checkpoint(tmp_path / f"{name}.safetensors").metadata["validation_accuracy"]
        for name in names[1:]
    }
    assert found[kept.stem] == max(found.values())
    assert Reproduction(config, tmp_path, notify=said.append).model("baseline") == kept
    assert sum(", cycle" in text for text in said) == 2  # nothing was trained again


def test_the_command_reproduces_and_says_by_what(tmp_path):
    config = tmp_path / "tiny.toml"
    config.write_text(
        'source = "sample"\nprune = false\nbits = [2]\ncentroid_epochs = 0\ntest_images = 50\n'
        "recalibration_images = 50\ncompensation_images = 0\n"
        '[models]\ngridmask = ["resnet9-s/gridmask"]\n'
    )
    done = CliRunner().invoke(app, ["reproduce", str(tmp_path / "run"), "--config", str(config)])
    assert done.exit_code == 0, done.output
    told = done.stdout
    assert "By `python -m compression reproduce run --config tiny.toml`, on " in told
    assert told.count("| gridmask, dense") == 3
    asked = ["reproduce", str(tmp_path / "run"), "--config", str(config), "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["command"].endswith("reproduce run --config tiny.toml")
    names = ["gridmask, dense", "gridmask, dense, 2 bits", "gridmask, dense, 2 bits, recalibrated"]
    assert [row["variant"] for row in shown["rows"]] == names
    done = CliRunner().invoke(app, ["reproduce", "x", "--config", str(config), "--quick"])
    assert str(done.exception) == "--quick must stand alone, got a --config too."
    with pytest.raises(InputError, match="--quick must stand alone, got a --data too"):
        reproduce_command(tmp_path / "quick", quick=True, data=tmp_path)


def test_a_folder_of_another_run_is_refused(tmp_path):
    Reproduction(ReproductionConfig(**TINY), tmp_path)  # has done nothing yet
    with pytest.raises(InputError, match="must hold a run of the same config"):
        Reproduction(ReproductionConfig(**TINY | {"seed": 5}), tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InputError, match="must hold a run of the same config"):
        Reproduction(ReproductionConfig(**TINY), tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "gridmask-1.safetensors").touch()
    with pytest.raises(InputError, match="must be empty or hold a run, got checkpoints of another"):
        Reproduction(ReproductionConfig(**TINY), tmp_path / "other")


def test_a_run_that_began_at_other_weights_is_not_gone_on_with(tmp_path):
    config = ReproductionConfig(**TINY)
    results = tmp_path / "results.json"
    began = Reproduction(config, tmp_path).content["weights"]
    assert list(began) == ["resnet9-s/gridmask"] and len(began["resnet9-s/gridmask"]) == 64
    content = json.loads(results.read_text())
    results.write_text(json.dumps(content | {"weights": {"resnet9-s/gridmask": "0" * 64}}))
    with pytest.raises(InputError, match="gridmask must have the weights that this folder's run"):
        Reproduction(config, tmp_path)


def test_the_images_are_those_that_there_are(tmp_path):
    config = ReproductionConfig(**TINY | {"train_images": 45_000, "compensation_images": 40_000})
    content = Reproduction(config, tmp_path).content
    assert content["images"] == {"train": 3000, "validation": 30, "test": 50}
    assert "; 3,000 training images; " in markdown(content)


def test_a_row_whose_training_kept_its_start_says_so():
    def row(variant, loss):
        return {
            "variant": variant, "accuracy": 0.9, "loss": loss, "packed_bytes": 1, "dense_bytes": 2,
        }  # fmt: skip

    names = ["net, dense", *(f"net, dense, {bits} bits" for bits in (4, 2))]
    rows = [row(names[0], 0.3)]
    for name, loss in zip(names[1:], (0.4, 0.2), strict=True):
        rows += [row(name, 0.4), row(f"{name}, compensated", 0.4), row(f"{name}, trained", loss)]
    config = asdict(ReproductionConfig(**TINY))
    told = markdown({"command": "x", "machine": machine_record(), "config": config, "rows": rows})
    marked = [line for line in told.splitlines() if "no epoch was better" in line]
    assert len(marked) == 1
    assert marked[0].startswith(
        "| net, dense, 4 bits, trained (no epoch was better than the start)"
    )


def test_the_table_names_the_steps_that_were_taken_alone():
    whole = {"command": "x", "machine": machine_record(), "rows": []}

    def said(**asked):
        config = ReproductionConfig(**TINY | asked)
        text = markdown(whole | {"config": asdict(config)}).partition("\n")[0]
        return text.partition("resnet9-s; ")[2]

    assert said() == (
        "128 training images; epochs: 1 of fine-tuning, 1 of centroids, by distillation; "
        "compensation on 50 images."
    )
    asked = {"prune": False, "first_last_bits": 8, "code_epochs": 2, "distil": False}
    assert said(**asked, compensation_images=0) == (
        "128 training images; not pruned; epochs: 1 of centroids, 2 of weights that may change "
        "centroid; first and last layer at 8 bits."
    )
    none = {"prune": False, "centroid_epochs": 0, "compensation_images": 0}
    assert said(**none) == "128 training images; not pruned."
    trained = {"baseline": ["baseline", "baseline-restart"], "gridmask": ["resnet9-s/gridmask"]}
    assert said(**none, models=trained) == (
        "128 training images; models trained by baseline, baseline-restart; not pruned."
    )


def test_a_preset_that_is_not_the_checkpoints_is_said(tmp_path):
    config = ReproductionConfig(**TINY | {"preset": "resnet9"})
    expected = "preset must be that of resnet9-s/gridmask, resnet9-s, got resnet9"
    with pytest.raises(InputError, match=expected):
        Reproduction(config, tmp_path)


def test_trained_levels_are_not_trained_again_where_only_their_row_is_missing(
    tmp_path, monkeypatch
):
    asked = {"prune": False, "bits": [2], "compensation_images": 0}
    config = ReproductionConfig(**TINY | asked)
    first = Reproduction(config, tmp_path)

    def killed(variant, path):
        if killed.left == 0:
            raise KeyboardInterrupt
        killed.left -= 1
        return save(variant, path)

    killed.left, save = 3, reproduction.save_packed
    with monkeypatch.context() as patch:
        patch.setattr(reproduction, "save_packed", killed)
        with pytest.raises(KeyboardInterrupt):
            first.run()
    assert [path.name for path in tmp_path.glob("*.resume")] == [
        "gridmask-dense-2-bits-trained.resume"
    ]
    said = []
    rows = Reproduction(config, tmp_path, notify=said.append).run()
    assert rows[-1]["variant"] == "gridmask, dense, 2 bits, trained"
    assert sum("epoch 1 of 1" in text for text in said) == 1
    assert list(tmp_path.glob("*.resume")) == []


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("models = 3", "models must name at least one model, got 3"),
        ("[models]\ngridmask = []", "models.gridmask must be a list of recipes"),
        ('[models]\ngridmask = ["sgd"]', "models.gridmask must be one of baseline, "),
        ('compress = "other"', "compress must be one of baseline, gridmask, got 'other'"),
        ("bits = [9]", "bits must be a whole number from 1 to 8, got 9"),
        ("levels = [0.5, 0.5]", "levels must be at most 100 different numbers, got"),
        ('[models]\n"a,b" = ["baseline"]', "models must be named by letters, digits, - and _, got"),
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


@pytest.mark.parametrize("name", ["full", "short", "quick", "shipped", "resnet9", *TWO_BITS])
def test_the_configs_in_assets_are_sound(name):
    config, trained = load_config(ASSETS / f"{name}.toml"), name in ("full", "short")
    assert all("/" in cycles[0] for cycles in config.models.values()) != trained


@pytest.mark.parametrize("name", ["quick", "short", "shipped", "resnet9", *TWO_BITS])
def test_what_is_recorded_was_done_by_its_config(name):
    path = "quick-reproduction" if name == "quick" else f"reproduce-{name}"
    recorded = json.loads((ASSETS.parent / "results" / f"{path}.json").read_text())
    asked = json.loads(json.dumps(asdict(load_config(ASSETS / f"{name}.toml"))))
    assert recorded["config"] == asked
    assert recorded["command"].endswith("--quick" if name == "quick" else f"{name}.toml")
