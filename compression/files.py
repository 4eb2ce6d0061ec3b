"""Files that are whole or not there: written beside, then put in their place."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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


def write_json(path: Path, content: Any) -> None:
    """The content as JSON, all at once."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(content, indent=1) + "\n")
