"""The tables with a row for each layer: what people write into them, and what they break."""

import pytest

from compression.inputs import InputError
from compression.ui import prune_steps, quantize_steps


@pytest.mark.parametrize(
    ("cell", "value"), [("50", 0.5), ("50 %", 0.5), (12.5, 0.125), ("12,5", 0.125), (0, 0.0)]
)
def test_prune_table_reads_what_people_write(cell, value):
    assert prune_steps.read_table([["conv1", 864, cell]], ["conv1"]) == {"conv1": value}
    assert prune_steps.read_table({"data": [["conv1", 864, cell]]}, ["conv1"]) == {"conv1": value}


@pytest.mark.parametrize("cell", ["half", None, "", 101, -1, float("nan")])
def test_prune_table_refuses_what_is_no_percentage(cell):
    with pytest.raises(InputError, match="sparsity of conv1 must be a number from 0 to 100 %, got"):
        prune_steps.read_table([["conv1", 864, cell]], ["conv1"])


@pytest.mark.parametrize("rows", [None, [], "conv1", [1], [["conv1", 1]]])
def test_prune_table_of_another_form_is_refused(rows):
    with pytest.raises(InputError, match="must (have a row for each layer|be layer, weights and)"):
        prune_steps.read_table(rows, ["conv1"])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["conv1"], "must have a row for each layer, got none of conv2, linear"),
        (["conv1", "conv2", "linear", "conv1"], "one row for each layer, got two of conv1"),
        (["conv1", "conv2", "linear", ""], "layer must be one of conv1, conv2, linear, got ''"),
    ],
)
def test_a_table_has_one_row_for_each_layer(names, sentence):
    """Gradio's menu deletes and adds rows."""
    layers = ["conv1", "conv2", "linear"]
    with pytest.raises(InputError, match=sentence):
        prune_steps.read_table([[name, 100, 50] for name in names], layers)
    with pytest.raises(InputError, match=sentence):
        quantize_steps.read_bits(4, [[name, ""] for name in names], layers)


def test_bits_come_from_the_common_width_and_the_table():
    rows = [["conv1", "8"], ["conv2", ""], ["linear", None], ["conv3", 3.0]]
    layers = ["conv1", "conv2", "conv3", "linear"]
    widths = quantize_steps.read_bits(4, rows, layers)
    assert list(widths.items()) == [("conv1", 8), ("conv2", 4), ("conv3", 3), ("linear", 4)]
    with pytest.raises(InputError, match="bits of conv1 must be a whole number from 1 to 8, got"):
        quantize_steps.read_bits(4, [["conv1", "9"]], ["conv1"])
    with pytest.raises(InputError, match="bits of conv1 must be a whole number .* got 'few'"):
        quantize_steps.read_bits(4, [["conv1", "few"]], ["conv1"])
    with pytest.raises(InputError, match="bits must be one of 8, 4, 2, got 3"):
        quantize_steps.read_bits(3, [["conv1", ""]], ["conv1"])
    rows = [["linear", "6"], ["conv2", ""], ["conv1", ""]]  # in whatever order they come
    spared = quantize_steps.read_bits(2, rows, ["conv1", "conv2", "linear"], True)
    assert spared == {"conv1": 8, "conv2": 2, "linear": 6}  # what the table says goes first
