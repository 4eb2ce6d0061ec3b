"""The settings of learning a packed file of a size, and the recipes that come of them."""

from dataclasses import dataclass

from compression.centroids import CentroidConfig
from compression.inputs import InputError, real, whole_field
from compression.recipes import TrainConfig

# SGD, since Muon's steps are as long where the gradient is noise, and turn codes over: resnet9-s in
# 219 kB was farther from its teacher after ten epochs of it than after three of SGD.
_BATCH, _WARMUP = 128, 0.1
_OF_LEARNING = (
    "learning_rate conv_learning_rate shrinking first_ratio worth_power compensate draws".split()
)


@dataclass(frozen=True)
class ShrinkConfig:
    """max_bytes: of the packed file; epochs of learning through the rounding, 0 for none, from
    first_ratio times that size, with shrinking and worth_power (`train_entropy`); centroid_epochs
    of the levels alone, 0 for none; learning rates as in TrainConfig (sgd_lr, sgd_conv_lr) and
    CentroidConfig (learning_rate); compensate: whether learning begins where rounding errors make
    up for each other, as they do without epochs; compensation_images: training images for that;
    recalibration_images: those on which batch norm is re-estimated; draws: as in TrainConfig, of
    learning through the rounding."""

    max_bytes: float
    epochs: int = 8
    learning_rate: float = 0.01
    conv_learning_rate: float | None = None
    shrinking: float = 0.5
    first_ratio: float = 1.5
    worth_power: float = 0.75
    centroid_epochs: int = 3
    centroid_lr: float = 0.3
    compensate: bool = False
    compensation_images: int = 512
    recalibration_images: int = 5000
    draws: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        real("max_bytes", self.max_bytes, 1, 2**40, "bytes")
        whole_field(self, "epochs", 0, 1000)
        real("learning_rate", self.learning_rate, 0, 100)
        if self.conv_learning_rate is not None:
            real("conv_learning_rate", self.conv_learning_rate, 0, 100)
        real("centroid_lr", self.centroid_lr, 1e-9, 100)
        real("shrinking", self.shrinking, 0, 1)
        real("first_ratio", self.first_ratio, 1, 1000)
        real("worth_power", self.worth_power, 0, 1)
        whole_field(self, "centroid_epochs", 0, 1000)
        whole_field(self, "compensation_images", 1, 50_000, "images")
        whole_field(self, "recalibration_images", 1, 50_000, "images")
        if not self.epochs:
            for name in _OF_LEARNING:
                left, given = type(self).__dataclass_fields__[name].default, getattr(self, name)
                if given != left:
                    raise InputError(f"{name} must be left at {left} without epochs, got {given}.")
        self.training()
        self.centroids()

    def training(self) -> TrainConfig:
        """The recipe of learning through the rounding."""
        return TrainConfig(
            epochs=max(1, self.epochs),
            batch_size=_BATCH,
            optimizer="sgd",
            sgd_lr=self.learning_rate,
            sgd_conv_lr=self.conv_learning_rate,
            warmup=_WARMUP,
            draws=self.draws,
            seed=self.seed,
        )

    def centroids(self) -> CentroidConfig:
        """The recipe of the levels."""
        return CentroidConfig(
            epochs=max(1, self.centroid_epochs), learning_rate=self.centroid_lr, seed=self.seed
        )
