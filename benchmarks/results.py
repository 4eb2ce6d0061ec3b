"""What a benchmark finds, as plain frozen records, and the JSON file that keeps them.

A Comparison is one piece of work done by us and by a peer in turn; a Figure is one number beside
its aim; a Growth is a panel of the plot. The file holds a section for each subject with the machine
that measured it, so that one subject can be measured again without the others.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from compression.files import write_json

FOLDER = Path(__file__).resolve().parent
RESULTS, QUICK_RESULTS = FOLDER / "results.json", FOLDER / "last.json"
PACKAGES = (
    *("torch", "torchvision", "numpy", "scikit-learn", "pillow", "gradio", "playwright"),
    *("kmeans1d", "fast-pytorch-kmeans"),
)


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of several measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one number."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Comparison:
    """The same work by ours and by a peer, in turn; without a peer its fields are None.

    ours_s, peer_s: seconds for the whole `work`; ratio: the peer's seconds over ours, pair by pair;
    *_mib: the most memory held beyond imports and inputs, in a process of its own; limit_s: what
    the hardware could do, estimated as limit_from says; aim and whether it holds (None: it does not
    apply here); agreement: how far the two answers are the same; note: what else there is to say.
    """

    subject: str
    work: str
    ours: str
    ours_s: Spread
    pairs: int
    peer: str | None = None
    peer_s: Spread | None = None
    ratio: Spread | None = None
    ours_mib: float | None = None
    peer_mib: float | None = None
    limit_s: float | None = None
    limit_from: str = ""
    aim: str = ""
    holds: bool | None = None
    agreement: str = ""
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """One number in its unit; aim and whether it holds (None: no aim, or it does not apply here).

    value None: it could not be measured here, and the note says why.
    """

    subject: str
    name: str
    value: float | None
    unit: str
    aim: str = ""
    holds: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Growth:
    """A panel of the plot: seconds against x, one line for each name in `seconds`.

    A line may end early, where its method was too slow to go on.
    """

    subject: str
    title: str
    x_label: str
    x: tuple[float, ...]
    seconds: dict[str, tuple[float, ...]]
    note: str = ""


Row = Comparison | Figure | Growth
_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Comparison, Figure, Growth)
}


@dataclass(frozen=True)
class Section:
    """One subject's rows, and what measured them: rates are those of `limits.py`, by name."""

    rows: tuple[Row, ...]
    command: str
    machine: dict[str, Any]
    versions: dict[str, str]
    rates: dict[str, Any]


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Name -> installed version, for those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def save(path: Path, sections: Mapping[str, Section]) -> None:
    """Write the sections as JSON, all at once."""
    content = {name: _section_as_json(section) for name, section in sections.items()}
    write_json(path, content)


def load(path: Path) -> dict[str, Section]:
    """What `save` wrote; nothing where there is no such file."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text())
    return {name: _section_from_json(section) for name, section in content.items()}


def _section_as_json(section: Section) -> dict[str, Any]:
    rows = [{"kind": type(row).__name__.lower()} | asdict(row) for row in section.rows]
    return asdict(section) | {"rows": rows}


def _section_from_json(content: dict[str, Any]) -> Section:
    fields = dict(content)
    return Section(tuple(_row(row) for row in fields.pop("rows")), **fields)


def _row(content: dict[str, Any]) -> Row:
    fields = dict(content)
    kind = _KINDS[fields.pop("kind")]
    for name in ("ours_s", "peer_s", "ratio"):
        if isinstance(fields.get(name), dict):
            fields[name] = Spread(**fields[name])
    if kind is Growth:
        fields["x"] = tuple(fields["x"])
        fields["seconds"] = {name: tuple(line) for name, line in fields["seconds"].items()}
    return kind(**fields)
