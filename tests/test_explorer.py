"""What the server holds: models made ready before anybody asks, uploads, a bounded store."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gradio as gr
import pytest

from compression.checkpoint import load_checkpoint, save_checkpoint
from compression.data import load_cifar10
from compression.inputs import InputError
from compression.presets import SHIPPED
from compression.pruning import prune
from compression.ui import compare_tab, prune_steps
from compression.ui import explorer as module
from compression.ui.compare_tab import all_keys
from compression.ui.explorer import Explorer
from compression.ui.prune_steps import dense_table, prune_layers
from compression.ui.session import Session
from compression.ui.start_bar import choose_model
from compression.ui.timing import first_guess


@pytest.fixture(scope="module")
def explorer():
    return Explorer()


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


def test_store_drops_the_least_recently_used_and_says_so():
    explorer = Explorer(capacity=2)
    made = [SimpleNamespace(name=name) for name in ("first", "second", "third")]
    keys = [explorer.put(variant) for variant in made[:2]]  # pyright: ignore[reportArgumentType]
    assert explorer.variant(keys[0]) is made[0]
    explorer.put(made[2])  # pyright: ignore[reportArgumentType]
    assert explorer.variant(keys[0]) is made[0]
    with pytest.raises(InputError, match="has been dropped to make room: make it again"):
        explorer.variant(keys[1])
    assert explorer.find(keys[1]) is None and explorer.name_of_dropped(keys[1]) == "second"
    assert len(set(keys)) == 2 and all(len(key) >= 20 for key in keys)


def test_a_visit_goes_on_after_one_of_its_variants_was_dropped(monkeypatch):
    monkeypatch.setattr(compare_tab, "SHIPPED", compare_tab.SHIPPED[:1])
    explorer = Explorer(capacity=1)
    explorer.packed = {}
    session = Session(explorer.key_of(explorer.start, "sample"))
    dense = explorer.variant(session.start)
    for name in ("gone <1>", "kept"):
        session = session.with_cut(explorer.put(dataclasses.replace(dense, name=name)))
    assert list(compare_tab.compare(explorer, session, False)) == [(gr.skip(),) * 5]
    ((status, table, _, classes, differing),) = compare_tab.compare(explorer, session)
    assert status == gr.skip()
    assert f"Orange: fewer right than {dense.name};" in classes and classes.count("<tr>") == 3
    assert "All variants give the same answer" in differing
    assert "keeps 1 variant for all visitors together: gone &lt;1&gt;. To have" in table
    assert "<td>kept" in table
    assert table.count("<tr>") == 3  # the head, the dense model and what is left of the visit
    file = compare_tab.csv_file(explorer, session)
    assert file["name"] == "comparison.csv" and len(file["text"].splitlines()) == 3
    assert prune_steps.show_histogram(explorer, session, "conv1").data[1].name == "pruned"
    lost = dataclasses.replace(session, cut=session.made[0], pruned=session.made[0])
    assert len(prune_steps.show_histogram(explorer, lost, "conv1").data) == 1


def test_an_upload_that_was_dropped_is_said_to_be_gone():
    explorer = Explorer(capacity=1)
    first, _ = (
        explorer.put(SimpleNamespace(name=name))  # pyright: ignore[reportArgumentType]
        for name in ("uploaded mine", "other")
    )
    with pytest.raises(InputError, match="has been dropped to make room: upload it again"):
        choose_model(explorer, Session("sample:x"), first)


@pytest.mark.parametrize("capacity", [0, 1.5, None])
def test_a_store_of_no_variants_is_refused(capacity):
    with pytest.raises(InputError, match="variants must be a whole number from 1 to 10000, got"):
        Explorer(capacity=capacity)


@pytest.mark.parametrize("start", SHIPPED)
def test_the_page_begins_with_what_its_start_is(start):
    explorer = Explorer(start)
    assert explorer.preset == explorer.model(explorer.key_of(start, "sample")).preset
    assert f"with {start.partition('/')[0]}, guessed" in first_guess(explorer, 3)


def test_nothing_is_measured_beside_long_work(monkeypatch):
    monkeypatch.setattr(Explorer, "variant", lambda self, key: measured.append(key))
    measured, explorer = [], Explorer()
    with explorer.turn, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(explorer.measure, "sample:x")
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        assert measured == []
        explorer.turn.release()
        waiting.result(60)
        explorer.turn.acquire()
    assert measured == ["sample:x"]


def test_the_full_set_is_wanted_only_where_it_is(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="source full must be downloaded first"):
        Explorer(source="full", root=tmp_path)
    with pytest.raises(InputError, match="data must be a folder with the full CIFAR-10, got one"):
        Explorer(source="auto", root=tmp_path)
    assert Explorer(source="sample", root=tmp_path).source == "sample"
    monkeypatch.setattr(module.compression, "is_cached", lambda root: False)
    assert Explorer(source="auto").source == "sample"


def test_a_file_is_never_loaded_by_its_key():
    with pytest.raises(InputError, match="must still be in the server's memory"):
        Explorer().variant("sample:/etc/passwd")


def test_a_measured_model_does_not_wait_for_another_to_be_measured(explorer):
    key = explorer.key_of("resnet9-s/baseline", "sample")
    known = explorer.variant(key)
    with ThreadPoolExecutor(1) as pool, explorer._measuring:  # as if a large one were measured
        assert pool.submit(explorer.variant, key).result(timeout=60) is known


def test_a_start_out_of_a_file_is_called_by_its_name_alone(monkeypatch, tmp_path):
    few = {split: load_cifar10(split, "sample").head(20) for split in ("train", "test")}
    path = tmp_path / "mine.safetensors"
    save_checkpoint(load_checkpoint("resnet9-s/baseline").model, path, {})
    explorer = Explorer(start=str(path))
    monkeypatch.setattr(explorer, "images", lambda split, source: few[split])
    key = explorer.key_of(explorer.start, "sample")
    session, chosen, line = choose_model(explorer, Session("other"), path.name)
    assert (explorer.start, session.start, chosen) == (path.name, key, key)
    assert explorer.variant(key).name == "mine.safetensors" and "1,646,122 parameters" in line
    with pytest.raises(
        InputError, match=r"model must be one of .*, mine\.safetensors, got"
    ) as caught:
        choose_model(explorer, Session("other"), str(path))
    assert str(tmp_path) not in str(caught.value).partition(", got")[0]
