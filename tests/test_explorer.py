"""What the server makes ready before anybody asks for it, and what it does with an upload."""

import pytest

from compression.checkpoint import load_checkpoint, save_checkpoint
from compression.data import load_cifar10
from compression.pruning import prune
from compression.ui import explorer as module
from compression.ui.compare_tab import all_keys
from compression.ui.explorer import Explorer
from compression.ui.prune_steps import dense_table, prune_layers
from compression.ui.session import Session


@pytest.fixture
def steps(monkeypatch):
    """What a warm-up does, in its order."""
    done = []
    monkeypatch.setattr(module.time, "sleep", lambda seconds: done.append(("wait", seconds)))
    for name in ("images", "model", "variant"):
        monkeypatch.setattr(Explorer, name, lambda self, *asked, of=name: done.append((of, *asked)))
    return done


def test_the_first_model_is_ready_at_once_and_all_of_compare_after_a_while(steps):
    explorer = Explorer()
    first = explorer.key_of(explorer.start, "sample")
    explorer.warm_up()
    assert steps[:4] == [
        ("images", "validation", "sample"), ("model", first), ("variant", first),
        ("wait", module.QUIET_SECONDS),
    ]  # fmt: skip
    compared = all_keys(explorer, Session(first, "sample"))
    assert [key for what, key in steps[4:] if what == "variant"] == compared
    assert len(compared) == len(steps[4:]) >= 5


def test_an_upload_that_was_pruned_before_keeps_its_zeros(monkeypatch, tmp_path):
    few = {split: load_cifar10(split, "sample").head(20) for split in ("train", "test")}
    explorer = Explorer()
    monkeypatch.setattr(explorer, "images", lambda split, source: few[split])
    dense = load_checkpoint("resnet9-s/baseline").model
    save_checkpoint(prune(dense, {"conv4": 0.5}).model, tmp_path / "cut.safetensors", {})
    session = Session(explorer.upload(str(tmp_path / "cut.safetensors"), "sample"), "sample")
    rows = dense_table(explorer, session)
    rows[0][2] = 25.0  # conv1; conv4 stays at 0
    *_, (session, _, _, _) = prune_layers(explorer, session, rows)
    masks = explorer.variant(session.pruned).masks
    zeros = {name: float((~mask).double().mean()) for name, mask in masks.items()}
    assert {name: each for name, each in zeros.items() if each} == {"conv1": 0.25, "conv4": 0.5}
