"""The page's explorer on the first images of each split, for tests that make several steps."""

from compression.ui.explorer import Explorer


class FewImages(Explorer):
    """512 training images, as many as two batches of statistics need; 100 test images."""

    def images(self, split, source):
        return super().images(split, source).head(512 if split == "train" else 100)
