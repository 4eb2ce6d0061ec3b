"""Names that need no torch: the sizes of ResNet-9 and their layers, shipped files, classes."""

from dataclasses import dataclass

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True)
class Preset:
    """The shape of a ResNet-9: width of the first convolution, and the report's three additions."""

    width: int
    extra_stage: bool = False
    conv_bias: bool = False
    hidden: int | None = None


PRESETS = {
    "resnet9-s": Preset(width=32),
    "resnet9": Preset(width=64),
    "resnet9-t2g3": Preset(width=64, extra_stage=True, conv_bias=True, hidden=256),
}
DEFAULT_PRESET = "resnet9-s"
# Names of the checkpoints in assets/, the one to start from first.
SHIPPED = ("resnet9-s/baseline", "resnet9-s/gridmask", "resnet9/gridmask", "resnet9/distilled")


def layer_names(preset: str) -> tuple[str, ...]:
    """The names of a preset's convolution and linear layers in order, as in `prunable_layers`."""
    shape = PRESETS[preset]
    names = ["conv1", "conv2", "res1.first", "res1.second", "conv3", "conv4"]
    names += ["res2.first", "res2.second"]
    if shape.extra_stage:
        names += ["conv5", "res3.first", "res3.second"]
    if shape.hidden:
        names.append("hidden")
    return (*names, "linear")
