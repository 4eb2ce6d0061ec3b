"""Checks of what a user gave: one clear sentence that says what was expected and what came.

The page, its API and the command line all call the same functions, which call these; so the same
bad input gives the same sentence everywhere. Nothing here repairs or guesses.
"""

from collections.abc import Collection
from numbers import Real
from typing import Any


class InputError(ValueError):
    """What a user gave cannot be used; the text is one sentence, fit to be shown to them."""


def real(name: str, value: Any, low: float, high: float, unit: str = "") -> float:
    """`value` as a float in [low, high]; InputError for another type, NaN, or out of range."""
    if not _is_number(value) or not low <= value <= high:  # NaN is in no range
        raise InputError(_sentence(name, f"a number {_span(low, high, unit)}", value))
    return float(value)


def whole(name: str, value: Any, low: int, high: int, unit: str = "") -> int:
    """`value` as an int in [low, high]; a float counts only when it is whole (a slider's 3.0)."""
    if not _is_number(value) or not low <= value <= high or value != int(value):
        raise InputError(_sentence(name, f"a whole number {_span(low, high, unit)}", value))
    return int(value)


def whole_field(config: Any, name: str, low: int, high: int, unit: str = "") -> None:
    """Check a frozen dataclass's field as `whole` does, and keep it as that int."""
    object.__setattr__(config, name, whole(name, getattr(config, name), low, high, unit))


def size_text(size_bytes: float) -> str:
    """Bytes as a sentence has them: `39,000 bytes (38.1 KiB)`."""
    return f"{round(size_bytes):,} bytes ({size_bytes / 1024:,.1f} KiB)"


def count(number: int, one: str, several: str = "") -> str:
    """A number with its noun: `1 epoch`, `3 epochs`; several: where it takes more than an s."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def choice(name: str, value: Any, options: Collection[Any]) -> Any:
    """`value` when it is one of `options`; InputError with the list of options otherwise."""
    try:
        known = value in options
    except (TypeError, ValueError, RuntimeError):  # unhashable, or an array without one truth
        known = False
    if not known:
        listed = ", ".join(str(option) for option in options)
        raise InputError(_sentence(name, f"one of {listed}", value))
    return value


def _sentence(name: str, expected: str, value: object) -> str:
    return f"{name} must be {expected}, got {shown(value)}."


def shown(value: object) -> str:
    """`value` on one line, short enough for a sentence: a long text or list is cut."""
    if value is None:
        return "nothing"
    if isinstance(value, Real) and value != value:
        return "NaN (not a number)"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _span(low: float, high: float, unit: str) -> str:
    return f"from {low:.10g} to {high:.10g}{' ' + unit if unit else ''}"
