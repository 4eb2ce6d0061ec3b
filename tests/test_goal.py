"""A goal for the whole file on the page: the plan, what is foretold, when it no longer holds."""

import gradio as gr
import pytest

from compression.inputs import InputError
from compression.packing import save_packed
from compression.ui import prune_tab
from compression.ui.budget import GOALS, fill_bits, plan, prune_by_plan
from compression.ui.explorer import Explorer
from compression.ui.quantize_steps import ROUNDINGS, SOURCES, quantize_layers, recalibrate
from compression.ui.session import Session


@pytest.fixture(scope="module")
def explorer():
    return Explorer()


@pytest.fixture(scope="module")
def first(explorer):
    return Session(explorer.key_of("resnet9-s/baseline", "sample"))


@pytest.fixture(scope="module")
def pruned(explorer, first):
    """The visit after the smallest file that is predicted to lose at most 2 points."""
    *_, (rows, planned, _) = plan(explorer, first, 320, GOALS[1], 2.0)
    *_, (session, status, _, _) = prune_by_plan(explorer, first, rows, planned)
    assert "Recalibrate or fine-tune, then Quantize: its table has the bits." in status
    return session


def test_a_plan_for_points_lost_is_predicted_to_keep_them(explorer, first, pruned):
    dense = explorer.variant(first.start).evaluation.accuracy
    assert dense - 0.02 <= pruned.plan.accuracy < dense
    assert 50_000 < pruned.plan.size_bytes < 600_000
    assert f"predicted {pruned.plan.accuracy:.1%} of the test images right" in pruned.plan.text()


def test_the_file_that_the_page_makes_keeps_the_goal(explorer, first, tmp_path):
    *_, (rows, planned, _) = plan(explorer, first, 150, GOALS[0], 1)
    *_, (session, *_) = prune_by_plan(explorer, first, rows, planned)
    bits, _ = fill_bits(explorer, session)
    asked = (explorer, session, SOURCES[1], 4, bits, ROUNDINGS[0])
    *_, (session, *_) = quantize_layers(*asked)
    *_, (session, *_) = recalibrate(explorer, session)
    made = save_packed(explorer.variant(session.quantized), tmp_path / "file.safetensors")
    assert "batch norm recalibrated" in made.recipe[-1]
    assert 0.98 * 150 * 1024 <= made.total_bytes <= planned.size_bytes <= 150 * 1024


def test_what_was_foretold_stands_beside_what_is_measured(explorer, pruned):
    rows, status = fill_bits(explorer, pruned)
    assert "filled by the goal" in status
    asked = (explorer, pruned, SOURCES[1], 4, rows, ROUNDINGS[0])
    *_, (session, _, cards, _, _) = quantize_layers(*asked)
    assert "Predicted by the goal" in cards and f"{100 * pruned.plan.accuracy:.2f} %" in cards
    others = [[name, "8"] for name, _ in rows]
    *_, (_, _, cards, _, _) = quantize_layers(
        explorer, session, SOURCES[1], 4, others, ROUNDINGS[0]
    )
    assert "Predicted by the goal" not in cards


def test_another_pruning_makes_the_plan_void(explorer, pruned):
    other = pruned.with_cut("key")
    assert other.plan is None
    assert fill_bits(explorer, other) == (gr.skip(), gr.skip())


def test_goals_that_cannot_be_are_said(explorer, first):
    with pytest.raises(InputError, match="goal must be one of a file of at most .* got 'small'"):
        next(plan(explorer, first, 320, "small", 1))
    with pytest.raises(InputError, match="points lost must be a number from 0 to 100 points"):
        next(plan(explorer, first, 320, GOALS[1], -1))
    with pytest.raises(InputError, match="A goal must be spread first, got none"):
        next(prune_by_plan(explorer, first, [], None))


def test_a_goal_is_not_used_on_a_model_that_was_chosen_while_it_was_spread(explorer, first, pruned):
    other = Session(explorer.key_of("resnet9-s/gridmask", "sample"))
    with pytest.raises(InputError, match="for this model, got one for another: press again"):
        next(prune_by_plan(explorer, other, [], pruned.plan))
    assert pruned.plan.start == first.start


def test_the_budgets_range_is_that_of_the_model(explorer, first):
    large = Session(explorer.key_of("resnet9/gridmask", "sample"))
    found = {key: prune_tab._budget_of(explorer, s) for key, s in (("s", first), ("l", large))}
    assert (found["s"]["minimum"], found["s"]["value"]) == (80, 320)
    assert (found["l"]["minimum"], found["l"]["value"], found["l"]["maximum"]) == (320, 1280, 6400)
    *_, (rows, planned, _) = plan(explorer, first, found["s"]["minimum"], GOALS[0], 1)
    assert rows and 70 * 1024 < planned.size_bytes <= 80 * 1024


def test_a_shipped_packed_file_is_as_large_as_it_is_on_disk(explorer):
    name = "packed/resnet9-s-30x"  # the one that is soon measured
    variant = explorer.variant(explorer.key_of(name, "sample"))
    assert variant.packed_bytes == explorer.packed[name].stat().st_size
