"""What the commands share: options, progress bars, output as a table or as JSON."""

import errno
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from compression.data import ImageSet, check_cached
from compression.files import at_home, finite
from compression.inputs import InputError, shown
from compression.training import EpochResult

SourceOption = Annotated[
    str, typer.Option(help="auto (full where downloaded, else sample), sample or full.")
]


def _with_data(folder: Path | None) -> Path | None:
    """Where the full set is expected it is there: `auto` would take the sample without a word."""
    if folder is not None:
        check_cached(folder)
    return folder


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", help="The folder of the full CIFAR-10.", metavar="FOLDER", callback=_with_data
    ),
]
SettingsOption = Annotated[
    Path | None,
    typer.Option(help="Where the settings' measurements are kept, or will be: a .json file."),
]
ImagesOption = Annotated[
    int, typer.Option(help="Validation images to measure settings on, where there is no such file.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

_LONGEST_BESIDE = ".resume.part"  # of what is kept beside a file while it is made


def progress_bar() -> Progress:
    """A bar on standard error, so that standard output holds the result alone."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def note_sample(source: str, images: ImageSet) -> None:
    """Say on standard error that the bundled sample is taken, where `auto` chose it."""
    if source == "auto" and images.source == "sample":
        typer.echo(
            f"Using the bundled sample, {len(images):,} training images; "
            "`python -m compression download` fetches the full set.",
            err=True,
        )


def epoch_line(result: EpochResult) -> str:
    """One epoch in words: `epoch 3 of 5: 91.2 % (best 91.2 %, epoch 3)`."""
    return (
        f"epoch {result.epoch} of {result.epochs}: {result.accuracy:.2%} "
        f"(best {result.best_accuracy:.2%}, epoch {result.best_epoch})"
    )


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print a result: JSON, or one `name: value` a line."""
    if as_json:
        typer.echo(json.dumps(finite(result), indent=2, allow_nan=False))
        return
    for name, value in result.items():
        line = f"{name.replace('_', ' ')}: {value}"
        # A file's own words may hold what moves a terminal's cursor, or begins a line.
        typer.echo("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line))


def parse_numbers(name: str, text: str) -> list[float]:
    """`0.1,0.5` -> [0.1, 0.5]; InputError for what is no number."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"{name} must be numbers by commas, got {shown(text)}.") from error


def parse_pairs(name: str, pairs: list[str]) -> dict[str, float]:
    """[`conv1=0.5`, ...] -> {`conv1`: 0.5}; InputError for another form."""
    found = {}
    for pair in pairs:
        layer, equals, number = pair.partition("=")
        try:
            found[layer] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(f"{name} must be of the form NAME=NUMBER, got {shown(pair)}.")
    return found


def packed_target(out: Path) -> Path:
    """Where to write a packed file; InputError unless one may be written there by this name."""
    _check_text("packed file", out)
    if out.suffix != ".safetensors":
        raise InputError(f"The packed file must be named NAME.safetensors, got {out.name}.")
    return target(out)


def checkpoint_target(out: Path) -> Path:
    """Where to write a checkpoint; InputError, before an hour of training rather than after it,
    unless one can be written there."""
    _check_text("checkpoint", out)
    if out.suffix != ".safetensors" or out.is_dir():
        raise InputError(f"The checkpoint must be a file NAME.safetensors, got {out}.")
    return target(out)


def _check_text(kind: str, out: Path) -> None:
    try:
        out.name.encode()  # the name goes into the file, as text
    except UnicodeEncodeError as error:
        raise InputError(f"The {kind}'s name must be text, got {shown(out.name)}.") from error


def target(out: Path) -> Path:
    """Where to write a file, `~` as the home folder; InputError unless it can be written there,
    and what is kept beside it meanwhile. Its folder is made."""
    out = at_home(out)
    if out.is_dir():
        raise InputError(f"{out} must be a file to write, got a folder.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.NamedTemporaryFile(dir=out.parent, prefix=out.name + _LONGEST_BESIDE).close()
    except OSError as error:
        at = out.name if error.errno == errno.ENAMETOOLONG else out.parent
        raise InputError(f"{at} must be writable, got {error.strerror}.") from error
    return out


def settings_target(settings: Path | None) -> Path | None:
    """Where measured settings are, or are to be written (`target`), `~` as the home folder."""
    if settings is None:
        return None
    known = at_home(settings)
    return known if known.is_file() else target(settings)


def exact(number: float) -> str:
    """A number as a recorded command gives it: short where that is the same number."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)
