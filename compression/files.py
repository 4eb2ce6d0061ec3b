"""Files that are whole or not there: written beside, then put in their place."""

import json
import math
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compression.inputs import InputError, shown

# What reading a file and its JSON raises.
UNREADABLE = (OSError, ValueError, RecursionError)


def at_home(path: str | os.PathLike[str]) -> Path:
    """The path with `~` as the home folder; unchanged where it names no known user."""
    return Path(os.path.expanduser(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` once all is written.

    A kill or an error leaves the file as it was before. Folders are made as needed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    try:
        yield beside
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    beside.replace(path)


def without_folders(start: object) -> str:
    """A shipped name (`resnet9-s/baseline`) as it is, a file of the repository's assets/ from there
    on, another file's path by its name alone: what a recorded command says, so that no record
    holds a path of the machine that made it."""
    text = str(start)
    if re.fullmatch(r"[\w-]+/[\w-]+", text):
        return text
    path, root = Path(text).resolve(), Path(__file__).resolve().parents[1]
    return path.relative_to(root).as_posix() if path.is_relative_to(root / "assets") else path.name


def as_argument(path: object) -> str:
    """`without_folders` as one word of a recorded command, in quotes where a shell needs them."""
    return shlex.quote(without_folders(path))


def read_record(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file that this program wrote before; InputError for any other file."""
    try:
        content = json.loads(path.read_text())
    except UNREADABLE as error:
        raise InputError(
            f"{path.name} must be a record {what}, got {shown(str(error))}."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path.name} must be a record {what}, got {shown(content)}.")
    return content


def finite(content: Any) -> Any:
    """The content with None for each number that JSON has no word for: NaN and infinity."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_json(path: Path, content: Any) -> None:
    """The content as JSON, all at once."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """A text as UTF-8, all at once; a file that holds it already is left alone, as it may be in a
    folder that cannot be written."""
    content = text.encode("utf-8", errors="replace")
    if path.is_file() and path.read_bytes() == content:
        return
    with replacing(path) as beside:
        beside.write_bytes(content)
