"""Killed runs of training go on to the same bits, and only from a resume file that is theirs."""

import copy
import dataclasses
import json
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from compression import resume, training
from compression.constraints import HeldMasks
from compression.inputs import InputError
from compression.resume import machines_of
from compression.training import train
from tests import training_cases
from tests.training_cases import GRIDMASK, TINY, numbers, same_bits, tiny_net

images = training_cases.images
validation = training_cases.validation
masks = training_cases.masks


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path, monkeypatch, images, validation, masks, optimizer, killed_after
):
    last = {}

    def remember(model, *rest):
        last["model"] = copy.deepcopy(model)
        return validate(model, *rest)

    validate = training._validate
    monkeypatch.setattr(training, "_validate", remember)
    config = dataclasses.replace(TINY, optimizer=optimizer, gridmask=GRIDMASK)
    whole = list(train(tiny_net(), images, validation, config, masks=masks))
    whole_last = last["model"]
    state = tmp_path / "run.resume"
    run: Any = train(tiny_net(), images, validation, config, masks=masks, resume=state)
    for result in run:
        if result.epoch == killed_after:
            break
    run.close()
    assert [file.name for file in tmp_path.iterdir()] == ["run.resume"]
    rest = list(train(tiny_net(), images, validation, config, masks=masks, resume=state))
    assert [result.epoch for result in rest] == list(range(killed_after + 1, 4))
    assert numbers(rest) == numbers(whole)
    assert (rest[-1].best_epoch, rest[-1].best_accuracy) == (
        whole[-1].best_epoch,
        whole[-1].best_accuracy,
    )
    assert same_bits(rest[-1].best_model, whole[-1].best_model)
    assert same_bits(last["model"], whole_last)
    assert list(tmp_path.iterdir()) == []


def interrupted(path, images, validation, config=TINY, after=1, **options):
    """Leave the state of a run at `path` that was stopped after an epoch."""
    for result in train(tiny_net(), images, validation, config, resume=path, **options):
        if result.epoch == after:
            break


def test_killed_after_its_last_epoch_it_gives_that_epoch_again(tmp_path, images, validation):
    state = tmp_path / "run.resume"
    interrupted(state, images, validation, after=3)
    assert state.exists()
    (again,) = train(tiny_net(), images, validation, TINY, resume=state)
    whole = list(train(tiny_net(), images, validation, TINY))
    assert again.epoch == again.epochs == 3
    assert numbers([again]) == numbers(whole)
    assert same_bits(again.best_model, whole[-1].best_model)
    assert not state.exists()


def test_a_kill_while_writing_leaves_the_epoch_before(tmp_path, images, validation):
    state = tmp_path / "run.resume"
    interrupted(state, images, validation)
    (tmp_path / "run.resume.part").write_bytes(state.read_bytes()[:100])
    rest = list(train(tiny_net(), images, validation, TINY, resume=state))
    assert [result.epoch for result in rest] == [2, 3]


@pytest.mark.parametrize("content", [b"", b"{}", bytes(100)])
def test_a_damaged_resume_file_is_refused(tmp_path, images, validation, content):
    state = tmp_path / "run.resume"
    state.write_bytes(content)
    with pytest.raises(InputError, match=r"run.resume must be whole, got .*: remove it to start"):
        list(train(tiny_net(), images, validation, TINY, resume=state))
    assert state.read_bytes() == content


def test_another_safetensors_file_is_no_resume_file(tmp_path, images, validation):
    state = tmp_path / "run.resume"
    save_file(tiny_net().state_dict(), state)
    expected = "must be the state of a run, got another safetensors file: remove it"
    with pytest.raises(InputError, match=expected):
        list(train(tiny_net(), images, validation, TINY, resume=state))


@pytest.mark.parametrize("change", [{"epochs": 4}, {"seed": 1}, {"gridmask": GRIDMASK}])
def test_a_resume_file_of_another_recipe_is_refused(tmp_path, images, validation, change):
    state = tmp_path / "run.resume"
    interrupted(state, images, validation)
    config = dataclasses.replace(TINY, **change)
    with pytest.raises(InputError, match="must be of this recipe, got another one: remove it"):
        list(train(tiny_net(), images, validation, config, resume=state))


@pytest.mark.parametrize("what", ["model", "masks", "train", "validation", "teacher"])
def test_a_resume_file_of_another_start_is_refused(tmp_path, images, validation, masks, what):
    state = tmp_path / "run.resume"
    interrupted(state, images, validation)
    model = tiny_net(seed=1 if what == "model" else 0)
    sets = (images.head(49 if what == "train" else 50), validation.head(39 if "v" in what else 40))
    held = masks if what == "masks" else None
    teacher = tiny_net(seed=2) if what == "teacher" else None
    expected = (
        "must be of this model, masks, images and teacher, got another one: remove it to start anew"
    )
    with pytest.raises(InputError, match=expected):
        list(train(model, *sets, TINY, masks=held, teacher=teacher, resume=state))


def test_masks_over_zeros_that_are_there_already_are_told_apart(
    tmp_path, images, validation, masks
):
    state, model = tmp_path / "run.resume", tiny_net()
    HeldMasks(model, masks)  # zeros them
    run: Any = train(model, images, validation, TINY, masks=masks, resume=state)
    next(run)
    next(run)
    run.close()
    with pytest.raises(InputError, match="must be of this model, masks"):
        list(train(model, images, validation, TINY, resume=state))
    assert list(train(model, images, validation, TINY, masks=masks, resume=state))


def test_it_tells_on_what_the_run_was_computed(tmp_path, monkeypatch, images, validation):
    state, here = tmp_path / "run.resume", {"processor": "first", "commit": "a"}
    monkeypatch.setattr(resume, "machine_record", lambda: here)
    assert machines_of(state) == []
    interrupted(state, images, validation)
    assert machines_of(state) == [here]
    other = {"processor": "second", "commit": "a"}
    monkeypatch.setattr(resume, "machine_record", lambda: other)
    interrupted(state, images, validation, after=2)
    assert machines_of(state) == [here, other]
    monkeypatch.setattr(resume, "machine_record", lambda: here)
    interrupted(state, images, validation, after=3)
    assert machines_of(state) == [other, here]  # the last one last


def test_the_resume_file_holds_weights_momenta_and_progress(tmp_path, images, validation):
    state = tmp_path / "run.resume"
    interrupted(state, images, validation)
    tensors = load_file(state)
    owners = {name.split(".")[0] for name in tensors}
    assert owners == {"model", "best", "optimizer0", "optimizer1"}
    length = int.from_bytes(state.read_bytes()[:8], "little")
    header = json.loads(state.read_bytes()[8 : 8 + length])["__metadata__"]
    assert json.loads(header["progress"])["epoch"] == 1
    assert json.loads(header["recipe"])["muon_lr"] == TINY.muon_lr
