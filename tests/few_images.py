"""The page's explorer on the first images of each split, for tests that make several steps."""

from compression.ui.explorer import Explorer


class FewImages(Explorer):
    """The first 512 training images, and 100 of each other split."""

    def images(self, split, source):
        return super().images(split, source).head(512 if split == "train" else 100)
