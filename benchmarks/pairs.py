"""The measuring core: ours and its peers run in turn (A B, A B, ...), and a ratio from each turn.

A machine that grows slower or busier then slows both sides of a ratio alike; what is reported is
the median of the ratios with the least and the greatest. One call of a Work may do a part of the
whole only, such as some points of a long loop; its seconds are scaled up and the report says so.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.results import Comparison, Spread


@dataclass(frozen=True)
class Work:
    """What is timed. run: called with the round's number, from 0; share: what part of the whole
    work a call does (above 1 for a call that does it several times)."""

    name: str
    run: Callable[[int], Any]
    share: float = 1.0


@dataclass(frozen=True)
class Timed:
    """Seconds that the whole work takes, one a round, and what the calls returned."""

    name: str
    seconds: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)


def say(text: str) -> None:
    """A line of progress, beside the results."""
    print(text, file=sys.stderr, flush=True)


def in_turn(works: Sequence[Work], rounds: int, label: str = "") -> list[Timed]:
    """Each work timed once a round, one after the other, in the order given."""
    timed = [Timed(work.name) for work in works]
    for turn in range(rounds):
        for work, record in zip(works, timed, strict=True):
            started = time.perf_counter()
            answer = work.run(turn)
            record.seconds.append((time.perf_counter() - started) / work.share)
            record.answers.append(answer)
        last = ", ".join(f"{record.name} {record.seconds[-1]:.3g} s" for record in timed)
        say(f"  {label or works[0].name}, round {turn + 1} of {rounds}: {last}")
    return timed


def often(run: Callable[[], Any], seconds: float = 0.2) -> tuple[Callable[[int], Any], float]:
    """A call that repeats `run` until it takes about `seconds`, and how often it does; warms up."""
    run()
    started = time.perf_counter()
    run()
    count = max(1, round(seconds / max(time.perf_counter() - started, 1e-6)))

    def repeated(_: int) -> Any:
        for _ in range(count - 1):
            run()
        return run()

    return repeated, count


def compared(
    subject: str,
    work: str,
    ours: Timed,
    peer: Timed | None = None,
    *,
    at_least: float | None = None,
    aim: str = "",
    **others: Any,
) -> Comparison:
    """The comparison that the two records make; others: further fields of Comparison.

    at_least: the least median ratio that the aim asks for; aim: its words, if not the usual ones.
    """
    if peer is None:
        return Comparison(
            subject, work, ours.name, Spread.of(ours.seconds), len(ours.seconds), aim=aim, **others
        )
    ratio = Spread.of([b / a for a, b in zip(ours.seconds, peer.seconds, strict=True)])
    if at_least is not None:
        aim = aim or f"at least {at_least:g} times as fast"
        others["holds"] = ratio.median >= at_least
    return Comparison(
        subject,
        work,
        ours.name,
        Spread.of(ours.seconds),
        len(ours.seconds),
        peer=peer.name,
        peer_s=Spread.of(peer.seconds),
        ratio=ratio,
        aim=aim,
        **others,
    )
