"""Recorded scans come back from their files as they were; other files are refused."""

import json

import pytest

from compression.inputs import InputError
from compression.scan_cache import ScanCache
from compression.scan_records import load_scan, record_scan, save_scan
from compression.sensitivity import SensitivityPoint, dense_point, scan
from tests import scan_cases
from tests.scan_cases import IMAGES, LEVELS, CountingEngine

sample = scan_cases.sample
tiny_preset = scan_cases.tiny_preset
model = scan_cases.model


def test_a_scan_comes_back_from_its_file_and_is_not_run_again(model, sample, tmp_path):
    options = {"levels": LEVELS, "layers": ["conv1", "linear"]}
    points = list(scan(model, sample.images, sample.labels, cache=None, **options))
    dense = dense_point(model, sample.images, sample.labels)
    subject = (model, sample.images, sample.labels)
    recorded = record_scan(*subject, points, dense, about={"command": "test"})
    path = tmp_path / "deep" / "scan.json"
    save_scan(path, recorded)
    loaded = load_scan(path)
    assert loaded == recorded and loaded.about == {"command": "test"}
    assert list(path.parent.iterdir()) == [path]
    cache = ScanCache()
    loaded.remember(cache)
    CountingEngine.last = None
    again = list(scan(*subject, engine=CountingEngine, cache=cache, **options))
    assert again == points and CountingEngine.last is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.update(version=2), "must be a recorded scan, got 'another version'"),
        (lambda found: found.pop("points"), "must be a recorded scan, got .*points"),
        (lambda found: found.update(extra=1), "must be a recorded scan, got .*unexpected keyword"),
        (lambda found: found["dense"].update(accuracy=0.5), "dense at 0.0 that disagree"),
        (lambda found: found["points"][0].update(correct="many"), "must be a recorded scan"),
    ],
)
def test_other_files_are_refused(model, sample, tmp_path, change, message):
    dense = SensitivityPoint.counted("dense", 0.0, 100, IMAGES)
    points = [SensitivityPoint.counted("conv1", 0.5, 90, IMAGES)]
    path = tmp_path / "scan.json"
    save_scan(path, record_scan(model, sample.images, sample.labels, points, dense))
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=message):
        load_scan(path)


def test_missing_broken_and_unfinished_scans_are_refused(model, sample, tmp_path):
    with pytest.raises(InputError, match="must be a recorded scan, got .*No such file"):
        load_scan(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"version": 1, "poi')
    with pytest.raises(InputError, match="must be a recorded scan"):
        load_scan(tmp_path / "half.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="must be a recorded scan"):
        load_scan(tmp_path / "list.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="must be a recorded scan"):
        load_scan(tmp_path / "deep.json")
    dense = SensitivityPoint.counted("dense", 0.0, 100, IMAGES)
    coarse = SensitivityPoint.counted("conv1", 0.5, 9, 10)
    with pytest.raises(InputError, match="count all 120 images, got 10 at conv1 0.5"):
        record_scan(model, sample.images, sample.labels, [coarse], dense)
