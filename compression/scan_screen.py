"""Cheap answers that stand only where they leave no doubt; all others are computed in full.

An image counts as correct when its margin, the logit of its class less the best other one, is above
zero. A cheap way misses the margin by a little; how far at most is measured, point by point, on
images that take every way. A cheap answer stands where its margin is more than 1.5 times the
largest miss seen, and every answer that is redone adds to what was seen. Two ways are screened like
this: bfloat16 in place of float32, and, in place of computing a level at all, the straight line
between the margin of the dense model and that of the next higher level computed, drawn over the
squared weight that is removed (the margin drifts like a random walk whose variance that is).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CALIBRATION_IMAGES = 48  # these take every way at every point
UNKNOWN = -1.0  # a miss that nobody has measured: everything is in doubt
_SAFETY = 1.5


@dataclass
class Answers:
    """Of n images: margins float32; hits bool; done bool, where the full computation was made."""

    margins: Tensor
    hits: Tensor
    done: Tensor

    @classmethod
    def guessed(cls, margins: Tensor) -> "Answers":
        """Answers of which none is computed in full yet."""
        return cls(margins.clone(), margins > 0, torch.zeros_like(margins, dtype=torch.bool))

    def put_(self, rows: Tensor, computed: "Answers") -> None:
        """Set the answers at `rows`, (k,) int64, as done."""
        self.margins[rows], self.hits[rows] = computed.margins, computed.hits
        self.done[rows] = True


# rows (k,) int64, and whether they shall take every way -> their k answers
Compute = Callable[[Tensor, bool], Answers]


def judge(logits: Tensor, labels: Tensor) -> Answers:
    """The answers of (n, classes) float32 logits for (n,) int64 labels; a hit is an argmax."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    hits = logits.argmax(1) == labels
    return Answers(own - others, hits, torch.ones_like(hits))


def redo_doubtful_(
    answers: Answers, group: Tensor, misses: Tensor, compute: Callable[[Tensor], Answers]
) -> None:
    """Compute in full every answer in doubt, until none is; updates `answers` and `misses`.

    group: (n,) int64, which of the misses concerns each image; misses: (g,), the largest seen, or
    UNKNOWN. A NaN, among margins or misses, is always in doubt.
    """
    while True:
        limit = torch.where(misses < 0, torch.inf, _SAFETY * misses)[group]
        rows = (~answers.done & ~(answers.margins.abs() > limit)).nonzero().flatten()
        if not len(rows):
            return
        computed = compute(rows)
        miss = (computed.margins - answers.margins[rows]).abs()
        misses.scatter_reduce_(0, group[rows], miss, "amax")
        answers.put_(rows, computed)


@dataclass
class Evidence:
    """What was seen of one layer at its L levels, which descend.

    energy: (L,) float64, the squared weight that each level removes; misses: (L + 1, L), the
    largest miss of a margin at level [, i] on the line to level [u, ], the last row on no line but
    the dense model's margin itself; rounding: (L,), the largest miss of bfloat16; calibrated: how
    many images took every way so far.
    """

    energy: Tensor
    misses: Tensor
    rounding: Tensor
    calibrated: int = 0

    @classmethod
    def none_yet(cls, energy: Tensor) -> "Evidence":
        size = len(energy)
        return cls(energy, torch.full((size + 1, size), UNKNOWN), torch.full((size,), UNKNOWN))

    def calibration(self, images: int) -> int:
        """How many of the next `images` take every way; counts them as done."""
        fresh = max(0, min(CALIBRATION_IMAGES - self.calibrated, images))
        self.calibrated += fresh
        return fresh


class Descent:
    """The answers of one layer on one block of images, from the highest level down."""

    def __init__(self, evidence: Evidence, dense: Answers) -> None:
        self._evidence, self._dense = evidence, dense
        self.fresh = evidence.calibration(len(dense.margins))
        size = len(evidence.energy)
        self._upper = torch.full(dense.margins.shape, size)  # the last level computed, an image
        self._margins = dense.margins.clone()  # and the margin there
        self._measured = torch.empty(size, self.fresh)  # those of the images that take every way

    def answer(self, level: int, compute: Compute) -> Answers:
        """The answers at `level`, an index; to be called for 0, 1, ... in turn."""
        energy = self._evidence.energy
        if energy[level] == 0:  # nothing but zeros is removed: the dense model itself
            return self._dense
        ends = torch.cat([energy, torch.tensor([torch.inf], dtype=energy.dtype)])
        share = (energy[level] / ends[self._upper]).float()
        answers = Answers.guessed(_line(self._dense.margins, self._margins, share))
        if self.fresh:
            self._calibrate_(level, answers, compute)
        misses = self._evidence.misses[:, level]
        redo_doubtful_(answers, self._upper, misses, lambda rows: compute(rows, False))
        self._upper[answers.done] = level
        self._margins[answers.done] = answers.margins[answers.done]
        return answers

    def _calibrate_(self, level: int, answers: Answers, compute: Compute) -> None:
        """Compute the first images, and see how far the lines to each higher level miss them."""
        rows = torch.arange(self.fresh)
        computed = compute(rows, True)
        answers.put_(rows, computed)
        self._measured[level] = computed.margins
        energy, dense = self._evidence.energy, self._dense.margins[: self.fresh]
        share = (energy[level] / energy[:level]).float()[:, None]
        miss = (_line(dense, self._measured[:level], share) - computed.margins).abs()
        if level:
            seen = self._evidence.misses[:level, level]
            seen.copy_(torch.maximum(seen, miss.amax(1)))


def _line(dense: Tensor, upper: Tensor, share: Tensor) -> Tensor:
    return dense + (upper - dense) * share
