"""The compressed file's section: the waterfall of ways to store it, whole and by layer."""

import pytest
from safetensors.numpy import load_file

from compression.model import prunable_layers
from compression.packing import inspect_packed
from compression.packing_info import GZIPPED, Rung
from compression.ui import packed_section, size_plots
from tests import packing_cases

baseline = packing_cases.baseline
pruned = packing_cases.pruned
packed = packing_cases.packed


@pytest.fixture(scope="module")
def info(packed):
    return inspect_packed(packed[1])


def ways(figure):
    """Way -> KiB, of the bars that begin at the axis."""
    return {bar.y[0]: bar.x[0] for bar in figure.data if bar.base is None}


def changes(figure):
    """Way -> where its tinted part begins and ends, in KiB."""
    return {b.y[0]: (b.base[0], b.base[0] + b.x[0]) for b in figure.data if b.base is not None}


def test_beside_each_way_lies_what_it_saves_or_adds():
    rungs = [("a", 8192), (GZIPPED, 7168), ("b", 2048), ("c", 3072), ("On disk", 3072)]
    figure = size_plots.size_ladder([Rung(name, size, "So.") for name, size in rungs])
    assert ways(figure) == {"a": 8, GZIPPED: 7, "b": 2, "c": 3, "On disk": 3}
    assert changes(figure) == {"b": (2, 8), "c": (2, 3)}  # beside gzip's none, nor where none is
    saved, added = (
        next(bar for bar in figure.data if bar.base is not None and bar.y[0] == name)
        for name in "bc"
    )
    assert saved.marker.color != added.marker.color
    assert list(saved.customdata[0]) == [6144, "smaller"]
    assert list(added.customdata[0]) == [1024, "larger"]
    said = [note.text for note in figure.layout.annotations]
    assert said[2].startswith("b: 2.0 KiB, 4.0 x") and said[4].startswith(
        "<b>On disk: 3.0 KiB, 2.7"
    )


def test_the_ladder_is_of_the_whole_file_or_of_the_layer_that_is_chosen(info):
    whole = ways(packed_section.ladder_of(info, packed_section.WHOLE))
    assert whole == {rung.name: rung.size_bytes / 1024 for rung in info.ladder}
    layer = next(layer for layer in info.layers if layer.name == "conv3")
    one = ways(packed_section.ladder_of(info, "conv3"))
    assert one["Dense float32"] == 4 * layer.weights / 1024
    assert one["On disk"] == layer.total_bytes / 1024
    assert one["Bitmap index"] == (layer.ladder.bitmap + 4 * layer.levels) / 1024
    assert GZIPPED not in one
    assert packed_section.ladder_of(None, "conv3")["__type__"] == "update"


def test_each_layers_bar_says_its_bits_a_weight_and_how_much_is_not_zero(packed, info):
    quantized, path = packed
    stored, (bar,) = load_file(path), size_plots.layer_bytes(info).data
    layers = prunable_layers(quantized.model)
    assert list(bar.x) == list(layers)
    for place, (name, module) in enumerate(layers.items()):
        taken = sum(part.nbytes for key, part in stored.items() if key.startswith(f"{name}."))
        count, kept = module.weight.numel(), int(module.weight.count_nonzero())
        assert bar.y[place] == taken / 1024
        assert bar.text[place] == f"{8 * taken / count:.1f}"
        assert list(bar.customdata[place]) == [4, pytest.approx(100 * kept / count), count]
    shares = [share for _, share, _ in bar.customdata]
    assert shares[0] == 100 and max(shares[1:]) < 20.1
    assert "%{text} bits a weight" in bar.hovertemplate
    assert "%{customdata[1]:.1f} % not zero" in bar.hovertemplate


def test_the_layers_ladders_sum_to_the_files(info):
    """But for biases, batch norm and what only a whole file has."""
    whole = {rung.name: rung.size_bytes for rung in info.ladder}
    summed = dict.fromkeys(whole, 0)
    for layer in info.layers:
        for rung in layer.rungs:
            summed[rung.name.replace("the codebook", "codebooks and the rest")] += rung.size_bytes
    assert summed["Bit width"] == whole["Bit width"]
    rest = {whole[n] - summed[n] for n in ("With codebooks and the rest", "Bitmap index")}
    assert len(rest) == 1 and rest.pop() > 0
    assert whole["On disk"] - summed["On disk"] == info.vector_bytes + info.container_bytes
    assert all(r.explanation.endswith(".") for layer in info.layers for r in layer.rungs)
