"""Results as tables: for the terminal, and between the markers of benchmarks/README.md."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.results import Comparison, Figure, Growth, Section, Spread

README = Path(__file__).resolve().parent / "README.md"
BEGIN, END = "<!-- results -->", "<!-- /results -->"
NOT_YET = "Nothing has been measured yet: run `python -m benchmarks`."
TITLES = {
    "scan": "Sensitivity scan",
    "kmeans": "k-means",
    "gridmask": "GridMask",
    "evaluation": "Evaluation",
    "training": "Training",
    "page": "The page",
    "codebooks": "What the better optimum buys",
}
COMPARISON = (
    *("Work", "Ours", "Peer", "Times as fast (least to greatest)", "Peak memory: ours, peer"),
    *("Limit", "Aim", "Holds"),
)
FIGURE = ("What", "Measured", "Aim", "Holds", "Note")


def section_text(name: str, section: Section) -> str:
    """One subject in Markdown: its two tables, notes, and what measured it."""
    comparisons = [row for row in section.rows if isinstance(row, Comparison)]
    figures = [row for row in section.rows if isinstance(row, Figure)]
    lines = [f"### {TITLES.get(name, name)}", ""]
    if comparisons:
        lines += [*_table(COMPARISON, [_comparison(row) for row in comparisons]), ""]
        lines += [*dict.fromkeys(_remarks(comparisons)), ""]
    if figures:
        lines += [*_table(FIGURE, [_figure(row) for row in figures]), ""]
    return "\n".join([*lines, *_origin(section)])


def with_tables(readme: str, sections: Mapping[str, Section]) -> str:
    """The README's text with the tables of all sections between its markers."""
    known = [name for name in TITLES if name in sections]
    parts = [section_text(name, sections[name]) for name in known] or [NOT_YET]
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n" + "\n\n".join(parts) + f"\n{END}{after}"


def seconds_text(seconds: float) -> str:
    """A time with three digits in the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}" if seconds < 1000 else f"{seconds:.0f} s"
    return f"{seconds * 1e6:.3g} us"


def _comparison(row: Comparison) -> list[str]:
    peer = f"{row.peer}: {_spread(row.peer_s)}" if row.peer and row.peer_s else ""
    ratio = ""
    if row.ratio:
        low, high = (f"{value:.3g}" for value in (row.ratio.low, row.ratio.high))
        ratio = f"**{row.ratio.median:.3g}** ({low} to {high}), {row.pairs} pairs"
    memory = ", ".join(f"{x:,.0f} MiB" for x in (row.ours_mib, row.peer_mib) if x is not None)
    limit = "" if row.limit_s is None else seconds_text(row.limit_s)
    ours = f"{row.ours}: {_spread(row.ours_s)}"
    return [row.work, ours, peer, ratio, memory, limit, row.aim, _holds(row.holds)]


def _spread(spread: Spread) -> str:
    low, high = seconds_text(spread.low), seconds_text(spread.high)
    return f"{seconds_text(spread.median)} ({low} to {high})"


def _remarks(rows: list[Comparison]) -> Iterator[str]:
    """What the comparisons say beside their numbers, a line each."""
    for row in rows:
        pair = f"{row.ours} and {row.peer}" if row.peer else row.ours
        for text in (row.agreement, row.note):
            if text:
                yield f"- {row.work}, {pair}: {text}."
    for text in dict.fromkeys(f"- Limit of {row.work}: {row.limit_from}." for row in rows):
        if not text.endswith(": ."):
            yield text


def _figure(row: Figure) -> list[str]:
    value = "not measured" if row.value is None else f"{row.value:.4g} {row.unit}"
    return [row.name, value, row.aim, _holds(row.holds), row.note]


def _holds(holds: bool | None) -> str:
    return "" if holds is None else "yes" if holds else "**no**"


def _table(header: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    divider = ["---"] * len(header)
    return [f"| {' | '.join(cells)} |" for cells in (header, divider, *rows)]


def _origin(section: Section) -> list[str]:
    """Command, machine, rates and versions, in one line."""
    machine = section.machine
    versions = ", ".join(f"{name} {number}" for name, number in section.versions.items())
    return [
        f"By `{section.command}` on {machine['processor']}, {machine['threads']} threads, Python "
        f"{machine['python']}, commit {machine['commit']}, load {machine['load']:.1f} before; "
        f"{section.rates['text']}; {versions}."
    ]


def plain_text(row: Comparison | Figure | Growth) -> str:
    """One row for the terminal."""
    if isinstance(row, Growth):
        return f"{row.title}: grows with {row.x_label}, see the plot"
    header, cells = (COMPARISON, _comparison(row)) if isinstance(row, Comparison) else (
        FIGURE, _figure(row))  # fmt: skip
    parts = [f"{name}: {cell}" for name, cell in zip(header, cells, strict=True) if cell]
    return "\n    ".join(part.replace("**", "") for part in parts)
