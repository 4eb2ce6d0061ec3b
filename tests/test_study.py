"""The augmentation study: runs that differ in augmentation alone, and what they allow to say."""

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from compression import augmentation_study
from compression.__main__ import app
from compression.augmentation_study import StudyConfig, run_study
from compression.data import load_cifar10
from compression.evaluation import evaluate
from compression.hardware import machine_record
from compression.inputs import InputError
from compression.model import build_model
from compression.recipes import RECIPES
from compression.recorded_machine import machine_text
from compression.study_records import (
    WAYS,
    Difference,
    StudyRun,
    load_study,
    minutes,
    summarize,
)
from compression.ui import study_section
from compression.ui.study_section import against, conclusion
from tests.training_cases import same_bits


@pytest.fixture(scope="module")
def sets():
    return {
        split: load_cifar10(split, "sample").head(count)
        for split, count in (("train", 512), ("validation", 40), ("test", 40))
    }


def test_the_ways_of_a_seed_differ_in_augmentation_alone():
    config = StudyConfig(epochs=9, small_epochs=3)
    plain, cutout, masked = (asdict(config.recipe(way, 2)) for way in WAYS)
    assert (plain["epochs"], plain["small_epochs"], plain["seed"]) == (9, 3, 2)
    assert plain["gridmask"] is None and plain["cutout"] == 0
    assert cutout == plain | {"cutout": RECIPES["cutout"].cutout}
    ramp = {"ramp_epochs": RECIPES["gridmask"].gridmask.ramp_epochs // 2}
    assert masked == plain | {"gridmask": asdict(RECIPES["gridmask"].gridmask) | ramp}


def test_each_way_trains_its_recipe_from_the_weights_of_the_seed(
    tiny_network, sets, tmp_path, monkeypatch
):
    asked = []

    def train(model, train_set, validation_set, config, *, resume):
        assert train_set is sets["train"] and validation_set is sets["validation"]
        asked.append((model, config))
        history = [{"accuracy": 0.25, "seconds": 2.0}, {"accuracy": 0.5, "seconds": 3.0}]
        yield SimpleNamespace(
            epoch=config.epochs, best_model=model, best_accuracy=0.5, history=history
        )

    monkeypatch.setattr(augmentation_study, "train", train)
    machines = [machine_record() | {"commit": commit} for commit in ("a", "b")]
    monkeypatch.setattr(augmentation_study, "machines_of", lambda resume: machines)
    config = StudyConfig("tiny", epochs=6, small_epochs=2, seeds=(5, 3))
    runs = list(run_study(tmp_path / "study.json", sets, config))
    assert [(run.way, run.seed) for run in runs] == [(way, seed) for seed in (5, 3) for way in WAYS]
    test = sets["test"]
    for run, (model, recipe) in zip(runs, asked, strict=True):
        assert recipe == config.recipe(run.way, run.seed)
        assert (recipe.epochs, recipe.small_epochs, recipe.seed) == (6, 2, run.seed)
        assert model.preset == "tiny" and same_bits(model, build_model("tiny", seed=run.seed))
        assert run.correct == evaluate(model, test.images, test.labels).correct
        assert (run.machine, run.commit) == (machine_text(machines[0]), "a; b")
        assert (run.validation_accuracy, run.seconds, run.curve) == (0.5, 5.0, (0.25, 0.5))


def test_a_study_goes_on_where_it_was(sets, tmp_path, monkeypatch):
    config = StudyConfig(epochs=1, small_epochs=1, seeds=(3,))
    path = tmp_path / "study.json"
    first = next(run_study(path, sets, config))
    assert (first.way, first.seed, first.total, len(first.curve)) == ("plain", 3, 40, 1)
    assert first.validation_accuracy == first.curve[0]
    made = []

    def trained(way, seed, sets, config, resume: Path):
        made.append((way, seed, resume.name))
        return replace(first, way=way, seed=seed)

    monkeypatch.setattr(augmentation_study, "_trained", trained)
    runs = list(run_study(path, sets, config))
    assert runs[0] == first
    assert made == [
        ("cutout", 3, "study-cutout-3.resume"), ("gridmask", 3, "study-gridmask-3.resume"),
    ]  # fmt: skip
    assert load_study(path)[0] == runs
    fewer = sets | {"train": sets["train"].head(64)}
    for other, given in ((replace(config, epochs=2), sets), (config, fewer)):
        with pytest.raises(InputError, match="study.json must hold a study of the same config"):
            next(run_study(path, given, other))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"seeds": ()}, "seeds must name at least one seed, got none"),
        ({"seeds": (0, 0)}, r"seeds must be different numbers, got \(0, 0\)\."),
        ({"seeds": (0.5,)}, "seed must be a whole number"),
        ({"preset": "resnet99"}, "preset must be one of"),
    ],
)
def test_a_study_that_cannot_be_is_refused(options, text):
    with pytest.raises(InputError, match=text):
        StudyConfig(**options)


def test_a_file_that_holds_no_study_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"runs": [{"way": "plain"}]}')
    with pytest.raises(InputError, match=r"x\.json must be a file of a study, got another"):
        load_study(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("null")
    with pytest.raises(InputError, match=r"x\.json must be a record of a study, got nothing"):
        load_study(tmp_path / "x.json")


def runs_of(**correct) -> list[StudyRun]:
    return [
        StudyRun(way, seed, 0.9, count, 1000, 60.0 + seed, (0.9,))
        for way, counts in correct.items()
        for seed, count in enumerate(counts)
    ]


def test_the_summary_by_hand():
    plain, cutout = summarize(runs_of(plain=[900, 910, 920], cutout=[903, 916, 929]))
    assert (plain.mean, plain.spread) == pytest.approx((0.91, 0.01))
    assert plain.seconds == (60, 62) and minutes((60, 150)) == "1.0 to 2.5 min"
    apart = cutout.against(plain)
    assert (apart.mean, apart.spread, apart.seeds) == pytest.approx((0.006, 0.003, 3))
    assert apart.margin == pytest.approx(4.303 * 0.003 / 3**0.5)
    assert not apart.told_apart and against(apart) == "+0.60 points ± 0.75"
    assert against(Difference(0.01, 0, 1)) == "+1.00 points"


def test_only_seeds_that_every_way_has_are_counted():
    found = summarize(runs_of(plain=[900, 910], gridmask=[890]))
    assert [(row.way, row.accuracies) for row in found] == [
        ("plain", (0.9,)), ("gridmask", (0.89,)),
    ]  # fmt: skip


def test_the_conclusion_says_no_more_than_the_numbers():
    plain, better = {"plain": [900, 910, 920]}, {"cutout": [920, 931, 939]}
    text = conclusion(summarize(runs_of(**plain, **better)), 6)
    assert "With 6 epochs, training with Cutout is better than without, by 2.00 ± 0.25 (p" in text
    text = conclusion(summarize(runs_of(**plain, gridmask=[905, 900, 930])), 6)
    assert "with GridMask cannot be told from without (+0.17 points ± 2.59)" in text
    text = conclusion(summarize(runs_of(plain=[900], gridmask=[800])), 6)
    assert "cannot be told from without (-10.00 points)" in text
    text = conclusion(summarize(runs_of(**plain, **better, gridmask=[900, 911, 919])), 6)
    assert "; GridMask is worse than Cutout, by 2.00 ± 0.00 (points" in text
    text = conclusion(summarize(runs_of(**plain, **better, gridmask=[921, 930, 939])), 6)
    assert "; GridMask cannot be told from Cutout (+0.00 points ± 0.25)" in text


def test_what_the_page_says_of_the_recipes_is_so():
    assert "12 of 32 pixels a side out of every image" in study_section.LEAD
    assert RECIPES["cutout"].cutout == 12
    masks = StudyConfig(epochs=6).recipe("gridmask", 0).gridmask
    assert "comes in slowly, until it masks half of the images" in study_section.LEAD
    assert masks.probability == 0.5 and 0 < masks.ramp_epochs < 6


def test_a_study_by_other_recipes_is_not_gone_on_with(tmp_path, monkeypatch):
    def trained(way, seed, sets, config, resume):
        return StudyRun(way, seed, 0.9, 900, 1000, 60.0, (0.9,))

    monkeypatch.setattr(augmentation_study, "_trained", trained)
    path, config, sets = tmp_path / "study.json", StudyConfig(epochs=2, small_epochs=1), {}
    list(run_study(path, sets, config))
    assert load_study(path)[1]["recipes"]["cutout"]["cutout"] == 12
    list(run_study(path, sets, config))  # it is all there
    monkeypatch.setitem(RECIPES, "cutout", replace(RECIPES["cutout"], cutout=8))
    with pytest.raises(InputError, match="hold a study by the same recipes, got one by others"):
        list(run_study(path, sets, config))


def test_the_command_runs_a_study(tmp_path, monkeypatch):
    asked = set()

    def trained(way, seed, sets, config, resume):
        asked.add(config)
        return StudyRun(way, seed, 0.9, 900 + seed, 1000, 60.0, (0.9,))

    monkeypatch.setattr(augmentation_study, "_trained", trained)
    out = tmp_path / "study.json"
    words = ["study", str(out), "--preset", "resnet9", "--epochs", "5", "--small-epochs", "1"]
    found = CliRunner().invoke(app, [*words, "--seeds", "0,2", "--source", "sample"])
    assert found.exit_code == 0, found.output
    assert "gridmask: 90.10%, spread 0.14 points, 1.0 min a run" in found.output
    assert asked == {StudyConfig("resnet9", 5, 1, (0, 2))}
    told = "study.json --preset resnet9 --epochs 5 --small-epochs 1 --seeds 0,2 --source sample"
    assert load_study(out)[1]["command"].endswith(told)
