"""What the server makes ready before anybody asks for it."""

import pytest

from compression.ui import explorer as module
from compression.ui.compare_tab import all_keys
from compression.ui.explorer import Explorer
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
