"""The dense model to start from: a checkpoint of the visitor's own, and the way back to it."""

import pytest

from compression.checkpoint import save_checkpoint
from compression.inputs import InputError
from compression.ui.explorer import Explorer
from compression.ui.session import Session
from compression.ui.start_bar import choose_model, upload_model


class TwoSources(Explorer):
    """40 images of the sample; 60 others stand for the full set."""

    def images(self, split, source):
        whole = super().images(split, "sample")
        return whole.head(40) if source == "sample" else whole.head(60)


@pytest.fixture(scope="module")
def explorer(tiny_network):
    return TwoSources()


@pytest.fixture(scope="module")
def visit(explorer):
    """On the full images, where the server begins with the sample."""
    key = explorer.key_of(explorer.start, "full")
    return Session(key, "full", made=("key",), pruned="key", cut="key")


def test_an_upload_is_measured_on_the_visits_images_and_can_be_chosen_again(
    explorer, visit, tiny_network, tmp_path
):
    save_checkpoint(tiny_network, tmp_path / "mine.safetensors", {})
    path = str(tmp_path / "mine.safetensors")
    uploaded, key, line, listed = upload_model(explorer, visit, path)
    assert uploaded == Session(key, "full", made=("key",)) and explorer.holds(key)
    assert "right on 60 test images" in line
    assert explorer.variant(key).name == "uploaded mine"
    names = [name for name, _ in listed["choices"]]
    assert listed["value"] == key and listed["choices"][-1] == ("uploaded mine", key)
    assert names[0] == explorer.start and names.count("uploaded mine") == 1
    assert choose_model(explorer, uploaded, key) == (uploaded, key, line)
    other, chosen, said = choose_model(explorer, uploaded, explorer.start)
    assert (other.start, other.source, chosen) == (visit.start, "full", visit.start)
    assert other.made == ("key",) and "right on 60 test images" in said
    assert choose_model(explorer, other, key) == (uploaded, key, line)
    with pytest.raises(InputError, match="model must be one of resnet9-s/baseline, "):
        choose_model(explorer, uploaded, f"{key}x")
    with pytest.raises(InputError, match="A safetensors file is expected, got nothing"):
        upload_model(explorer, visit, None)
