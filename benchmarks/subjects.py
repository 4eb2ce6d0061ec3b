"""What several subjects work on: the shipped checkpoint and so many images of CIFAR-10."""

from compression.checkpoint import load_checkpoint
from compression.data import ImageSet, Split, load_cifar10
from compression.resnet9 import ResNet9

CHECKPOINT = "resnet9-s/baseline"


def shipped_model() -> ResNet9:
    """The checkpoint that is measured, in eval mode."""
    return load_checkpoint(CHECKPOINT).model


def images_of(split: Split, count: int) -> ImageSet:
    """`count` images of the full set where it is cached; else the sample's, repeated if need be.

    For timings alone: a repeated image takes as long as another, but tells nothing of accuracy.
    """
    images = load_cifar10(split, "auto")
    rows = [k % len(images) for k in range(count)]
    return ImageSet(
        images.images[rows],
        images.labels[rows],
        images.classes,
        images.source,
        images.indices[rows],
    )
