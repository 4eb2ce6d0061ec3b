"""What the commands front and study print as JSON, their measurements replaced by stand-ins."""

import json

import pytest
from typer.testing import CliRunner

from compression.__main__ import app
from compression.allocation_records import RecordedSettings
from compression.cli import front, study
from compression.front_records import OURS, RIVALS, FrontPoint
from compression.study_records import WAYS, StudyRun
from tests import cli_cases

start = cli_cases.start


def shown(*words):
    done = CliRunner().invoke(app, [*map(str, words), "--source", "sample", "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


class TwoPoints:
    """A front of two files: one of ours that lost 10 points where 9 were predicted, and a rival's;
    the dense model has 90 of 100 right."""

    dense_bytes = 1000

    def __init__(self, *asked):
        pass

    def dense_correct(self):
        return 90

    def points(self):
        yield FrontPoint(OURS, "size", 100, 101, 0.09, 100, 80, 100)
        yield FrontPoint(RIVALS[0], "size", 100, 500, 0.9, 100, 80, 100)


def test_a_front_says_how_far_its_predictions_were_off(start, tmp_path, monkeypatch):
    recorded = RecordedSettings("", "", [], {})
    monkeypatch.setattr(front, "measured_settings", lambda *asked: recorded)
    monkeypatch.setattr(front, "Front", TwoPoints)
    assert shown("front", start, tmp_path / "front.json") == pytest.approx({
        "goals": 1, "mean_drop_error": 1, "greatest_drop_error": 1, "drop_bias": -1,
        "mean_size_error": 1, "greatest_size_error": 1,
    })  # fmt: skip


def test_a_study_says_of_each_way_how_its_runs_ended(tmp_path, monkeypatch):
    def ran(out, sets, config, *, command):
        for seed in config.seeds:
            for k, way in enumerate(WAYS):
                yield StudyRun(way, seed, 0.9, 900 + 10 * k + seed, 1000, 60.0, (0.9,))

    monkeypatch.setattr(study, "run_study", ran)
    assert shown("study", tmp_path / "study.json", "--seeds", "0,2") == {
        way: f"{90.1 + k:.2f}%, spread 0.14 points, 1.0 min a run" for k, way in enumerate(WAYS)
    }
