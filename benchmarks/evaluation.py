"""`evaluate` beside plain eager float32 loops: time, memory, and the same predictions.

Ours runs over all images in every round. The loops run a fifth of them, another fifth each round,
and are scaled up; over the rounds they predict every image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks import fresh
from benchmarks.limits import Rates, layer_macs
from benchmarks.pairs import Timed, Work, compared, in_turn
from benchmarks.peers.training import BATCH, eager_predictions, loader_predictions
from benchmarks.results import Row
from benchmarks.subjects import images_of, shipped_model
from compression.evaluation import evaluate

# The course that most people learn this from evaluates in batches of 512; others take 128.
COURSE_BATCH = 512
OURS, EAGER = "evaluate", f"a plain eager loop, batches of {COURSE_BATCH}"
LOOPS = {
    EAGER: partial(eager_predictions, batch=COURSE_BATCH),
    f"a plain eager loop, batches of {BATCH}": eager_predictions,
    f"the loop over a DataLoader, batches of {BATCH}": loader_predictions,
}
ROUNDS, IMAGES, QUICK_ROUNDS, QUICK_IMAGES = 5, 10_000, 2, 512


@dataclass(frozen=True)
class Setting:
    """How many images, and in how many parts the loops take them."""

    images: int
    parts: int

    @classmethod
    def of(cls, quick: bool) -> "Setting":
        return cls(QUICK_IMAGES, QUICK_ROUNDS) if quick else cls(IMAGES, ROUNDS)

    def call(self, name: str) -> Callable[[int], Tensor]:
        """From uint8 images to predictions: of all by ours, of part `turn` by a loop."""
        model, data = shipped_model(), images_of("test", self.images)
        if name == OURS:
            return lambda _: evaluate(model, data.images, data.labels).predictions
        parts, loop = data.images.chunk(self.parts), LOOPS[name]
        return lambda turn: loop(model, parts[turn])


def run(quick: bool, rates: Rates) -> Iterator[Row]:
    """The comparisons, in float32 on all sides."""
    setting = Setting.of(quick)
    for name in (OURS, *LOOPS):
        Setting(BATCH, 1).call(name)(0)  # what a first call loads is not the work's
    works = [Work(OURS, setting.call(OURS))]
    works += [Work(name, setting.call(name), 1 / setting.parts) for name in LOOPS]
    ours, *loops = in_turn(works, setting.parts, "evaluation")
    held = {n: fresh.peak_mib("benchmarks.evaluation", n, quick) for n in (OURS, *LOOPS)}
    macs = setting.images * sum(layer_macs(shipped_model()).values())
    for loop in loops:
        yield compared(
            "evaluation",
            f"{setting.images:,} images, float32",
            ours,
            loop,
            at_least=2 if loop.name == EAGER else None,
            ours_mib=held[OURS],
            peer_mib=held[loop.name],
            limit_s=rates.compute_seconds(macs),
            limit_from="the network's arithmetic in float32",
            agreement=_agreement(ours, loop),
            note=f"a round of the loop ran a part of {setting.parts}",
        )


def _agreement(ours: Timed, loop: Timed) -> str:
    """How many predictions differ, over the parts of all rounds."""
    differing = int((ours.answers[-1] != torch.cat(loop.answers)).sum())
    return f"{differing} of {len(ours.answers[-1]):,} predictions differ"


def prepare(name: str, quick: bool) -> Callable[[], object]:
    """The work whose peak memory is measured; what a first call loads is not the work's."""
    Setting(BATCH, 1).call(name)(0)
    call = Setting.of(quick).call(name)
    return lambda: call(0)
