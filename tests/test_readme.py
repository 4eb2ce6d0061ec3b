"""The README says what the recorded results say, and its commands are those that exist."""

import importlib.util
import inspect
import re
from pathlib import Path

from compression.__main__ import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_table_of_results_is_that_of_the_recorded_files():
    path = ROOT / "assets" / "results" / "make_table.py"
    spec = importlib.util.spec_from_file_location("make_table", path)
    assert spec is not None and spec.loader is not None
    make_table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_table)
    assert make_table.with_table(README) == README
    assert "| `resnet9-s/gridmask` |" in README


def test_the_commands_exist():
    named = set(re.findall(r"^python -m compression (\w+)", README, re.MULTILINE))
    known = {command.name for command in app.registered_commands}
    assert named and named <= known


def test_each_command_answers_in_json_as_is_said():
    for command in app.registered_commands:
        assert command.callback is not None
        assert "json_output" in inspect.signature(command.callback).parameters, command.name


def test_pictures_and_front_matter_are_there():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
    front = README.split("---")[1]
    pinned = re.search(r"gradio==(\S+)", (ROOT / "requirements.txt").read_text())
    assert pinned is not None and f"sdk_version: {pinned[1]}" in front
    assert "app_file: app.py" in front
    needed = re.search(r'requires-python = ">=(3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert needed is not None and f'python_version: "{needed[1]}"' in front
