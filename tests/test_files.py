"""Files are whole or as they were."""

import json
import shlex
from pathlib import Path

import pytest

from compression.files import (
    as_argument,
    read_record,
    replacing,
    without_folders,
    write_json,
    write_text,
)
from compression.inputs import InputError

ASSETS = Path(__file__).resolve().parent.parent / "assets"


def test_an_error_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "deep" / "er" / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(ZeroDivisionError), replacing(path) as beside:
        beside.write_text("half of")
        1 / 0  # noqa: B018
    assert json.loads(path.read_text()) == {"a": 1}
    assert [found.name for found in path.parent.iterdir()] == ["x.json"]
    write_json(path, [2])
    assert json.loads(path.read_text()) == [2]
    assert [found.name for found in path.parent.iterdir()] == ["x.json"]


def test_what_a_file_holds_already_is_not_written_again(tmp_path):
    """Its folder may be one that cannot be written."""
    path = tmp_path / "x.md"
    write_text(path, "é\n")
    before = path.stat()
    write_text(path, "é\n")
    assert path.stat() == before
    write_text(path, "e\n")
    assert path.stat().st_ino != before.st_ino and path.read_text() == "e\n"


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "[" * 100_000])
def test_a_record_is_an_object_of_json(content, tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    assert read_record(path, "of x") == {"a": 1}
    path.write_text(content)
    with pytest.raises(InputError, match=r"^x\.json must be a record of x, got .*\.$"):
        read_record(path, "of x")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("resnet9-s/baseline", "resnet9-s/baseline"),
        ("/home/someone/runs/x.safetensors", "x.safetensors"),
        ("x.safetensors", "x.safetensors"),
        ("/home/someone/runs/checkpoint", "checkpoint"),
        ("~/runs/deep/checkpoint", "checkpoint"),
        (ASSETS / "reproduce" / "quick.toml", "assets/reproduce/quick.toml"),
    ],
)
def test_records_name_no_folders(given, said):
    assert without_folders(given) == as_argument(given) == said


@pytest.mark.parametrize("name", ["my net (2).safetensors", "it's.json", "a b/c;d", "é.json"])
def test_a_recorded_command_has_a_name_as_one_word(name):
    assert shlex.split(f"run {as_argument(name)}") == ["run", without_folders(name)]
