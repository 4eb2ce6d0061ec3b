"""Training recipes: what a recipe says, and the named ones, which differ in augmentation alone.

All were chosen on the validation images. What each run gave is in the metadata of the checkpoints.
"""

from dataclasses import asdict, dataclass, replace

from compression.gridmask import GridMask
from compression.hardware import PRECISIONS
from compression.inputs import InputError, choice, real, whole_field


@dataclass(frozen=True)
class GridMaskConfig:
    """GridMask as the recipe uses it; the fields mean what they mean in `GridMask`."""

    d_range: tuple[int, int] = (12, 18)
    ratio: float = 0.4
    rotate: float = 360.0
    probability: float = 0.5
    ramp_epochs: int = 0

    def __post_init__(self) -> None:
        self.transform()

    def transform(self) -> GridMask:
        """The transform itself; InputError where `GridMask` raises it."""
        return GridMask(**asdict(self))


@dataclass(frozen=True)
class TrainConfig:
    """One training recipe. Learning rates are per step of a mean loss; decays are per step too.

    sgd_conv_lr: that of convolutions where the optimizer is SGD, by default sgd_lr.
    temperature: of a teacher's answers, where there is one. small_epochs, small_side: the first so
    many epochs see the images reduced to so many pixels a side (progressive resizing), at that
    share of the arithmetic. norm_batch: images that share batch-norm statistics ("ghost" batch
    norm, Hoffer et al. 2017, arXiv 1705.08741); a batch is computed in parts of so many, which stay
    in a processor's cache. draws: after so many epochs the same augmented batches come again, with
    what a teacher answered to them, so that it is asked once; 0: all epochs are drawn anew.
    """

    epochs: int = 18
    batch_size: int = 512
    norm_batch: int = 64
    optimizer: str = "muon"
    muon_lr: float = 0.06
    muon_momentum: float = 0.9
    muon_weight_decay: float = 0.025
    sgd_lr: float = 0.02
    sgd_conv_lr: float | None = None
    sgd_momentum: float = 0.9
    sgd_weight_decay: float = 5e-4
    warmup: float = 0.15
    label_smoothing: float = 0.1
    temperature: float = 2.0
    translate: int = 4
    flip: bool = True
    cutout: int = 0
    small_epochs: int = 0
    small_side: int = 24
    draws: int = 0
    gridmask: GridMaskConfig | None = None
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        whole_field(self, "epochs", 1, 1000)
        whole_field(self, "batch_size", 2, 50_000, "images")
        whole_field(self, "norm_batch", 2, 50_000, "images")
        choice("optimizer", self.optimizer, ("muon", "sgd"))
        for name in ("muon_lr", "sgd_lr"):
            real(name, getattr(self, name), 0, 100)
        if self.sgd_conv_lr is not None:
            real("sgd_conv_lr", self.sgd_conv_lr, 0, 100)
            if self.optimizer != "sgd":
                raise InputError(
                    "sgd_conv_lr must be left out where muon trains the convolutions, "
                    f"got {self.sgd_conv_lr:g}."
                )
        real("temperature", self.temperature, 0.1, 100)
        for name in ("muon_momentum", "sgd_momentum", "warmup", "label_smoothing"):
            real(name, getattr(self, name), 0, 1)
        for name in ("muon_weight_decay", "sgd_weight_decay"):
            real(name, getattr(self, name), 0, 10)
        whole_field(self, "translate", 0, 16, "pixels")
        whole_field(self, "cutout", 0, 32, "pixels")
        whole_field(self, "small_epochs", 0, 1000)
        whole_field(self, "small_side", 8, 32, "pixels")
        whole_field(self, "draws", 0, 1000, "epochs")
        if self.draws and (self.small_epochs or (self.gridmask and self.gridmask.ramp_epochs)):
            raise InputError(
                f"draws must be 0 where epochs differ in size or masks, got {self.draws}."
            )
        choice("precision", self.precision, PRECISIONS)
        whole_field(self, "seed", 0, 2**31 - 1)


BASELINE = TrainConfig()
SHORT = replace(BASELINE, epochs=6, small_epochs=2)
RESTART = replace(BASELINE, epochs=12, muon_lr=0.03, sgd_lr=0.01, warmup=0.1, seed=1)
FINISH = replace(RESTART, epochs=8, muon_lr=0.02, sgd_lr=0.007, seed=2)

RECIPES = {
    "baseline": BASELINE,
    "gridmask": replace(BASELINE, gridmask=GridMaskConfig(probability=0.5, ramp_epochs=12)),
    "cutout": replace(BASELINE, cutout=12),
    # One cycle of a third of the epochs, where the whole schedule would take too long.
    "baseline-short": SHORT,
    "gridmask-short": replace(SHORT, gridmask=GridMaskConfig(probability=0.5, ramp_epochs=4)),
    # A second cycle from a checkpoint of the first (a warm restart), at half the learning rates,
    # and with fewer masks: a network of this size still underfits with many.
    "baseline-restart": RESTART,
    "gridmask-restart": replace(RESTART, gridmask=GridMaskConfig(probability=0.25)),
    # A third, lower cycle; with few masks, for what the masks had kept it from learning.
    "baseline-finish": FINISH,
    "gridmask-finish": replace(FINISH, gridmask=GridMaskConfig(probability=0.1)),
    # For the wider network: fewer masks, and small images while it learns the coarse of it.
    "gridmask-large": replace(
        BASELINE,
        small_epochs=12,
        gridmask=GridMaskConfig(probability=0.25, ramp_epochs=9),
    ),
}

FINE_TUNE = TrainConfig(
    epochs=5, optimizer="sgd", sgd_lr=0.02, sgd_weight_decay=5e-4, warmup=0.1, label_smoothing=0.0
)
