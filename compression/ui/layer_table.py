"""The rows of a table with one for each layer, as a visitor sent them: checked, in their order."""

from collections.abc import Sequence
from typing import Any

from compression.inputs import InputError, choice, shown


def layer_rows(rows: object, columns: str, layers: Sequence[str]) -> list[list[Any]]:
    """The rows in the order of `layers`, the layer's name first in each.

    columns: what a row holds, in words parted by commas and an `and`. Raises InputError for what is
    no table, for a row of another length, and where a layer has no row, or more than one.
    """
    if isinstance(rows, dict):  # as Gradio's clients send a table
        rows = rows.get("data")
    if not isinstance(rows, list) or not rows or not all(isinstance(r, list) for r in rows):
        raise InputError(f"The table must have a row for each layer, got {shown(rows)}.")
    width = len(columns.replace(" and ", ", ").split(", "))
    found: dict[str, list[Any]] = {}
    for row in rows:
        if len(row) != width:
            raise InputError(f"A row must be {columns}, got {shown(row)}.")
        name = choice("layer", row[0], layers)
        if name in found:
            raise InputError(f"The table must have one row for each layer, got two of {name}.")
        found[name] = row
    if missing := [name for name in layers if name not in found]:
        raise InputError(
            f"The table must have a row for each layer, got none of {', '.join(missing)}."
        )
    return [found[name] for name in layers]
