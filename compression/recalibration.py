"""Batch-norm recalibration: means and variances re-estimated on training images, no gradients.

Pruning and quantization shift what batch normalization sees; estimating its statistics anew brings
back much of the accuracy (EagleEye, Li et al. 2020, arXiv 2007.02491). One forward pass in which
each layer normalizes by its batch, as in training; the batches' statistics are pooled exactly by
Chan's formula in float64 (PreciseBN in Wu & Johnson 2021, arXiv 2105.07576), where PyTorch's
cumulative average would average the variances and lose the spread between batches. Left out: a pass
for each layer, so that it sees its predecessors recalibrated.
"""

import copy

import torch
from torch import Tensor, nn

from compression.data import normalize
from compression.inference import check_images
from compression.inputs import InputError, whole
from compression.unfolding import unfold_batch_norm

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def recalibrate_batch_norm(model: nn.Module, images: Tensor, *, batch_size: int = 500) -> nn.Module:
    """A copy of `model` whose batch-norm means and variances are those of `images`.

    images: (N, 32, 32, 3) uint8 training images, N >= 1; they are split into batches of nearly
    equal size, at most `batch_size` (1..50000). Variances are unbiased, as in training. Parameters,
    modes and all other buffers stay bit for bit. Raises InputError for no images, and for a model
    without running batch-norm statistics.
    """
    batch_size = whole("batch_size", batch_size, 1, 50_000, "images")
    check_images(images)
    model = unfold_batch_norm(model, images)
    recalibrated, probe = copy.deepcopy(model), copy.deepcopy(model).eval()
    pools = {name: _Pool(layer) for name, layer in _norms(probe).items()}
    if not pools:
        raise InputError("model must hold batch norm with running statistics, got none.")
    probe.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    device = next(probe.parameters()).device
    with torch.no_grad():
        for pixels in images.tensor_split(-(-len(images) // batch_size)):
            probe(normalize(pixels.to(device)))
        for name, layer in _norms(recalibrated).items():
            pools[name].write_(layer)
    return recalibrated


def _norms(model: nn.Module) -> dict[str, BatchNorm]:
    """The batch-norm layers that keep running statistics, by their names in the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BatchNorm) and module.running_mean is not None
    }


class _Pool:
    """Mean and sum of squared deviations of all values that pass one layer, a channel, in float64.

    The layer is put into training mode with momentum 1, so that its running statistics are those of
    the last batch: the forward pass computes them anyway.
    """

    def __init__(self, layer: BatchNorm) -> None:
        layer.train().momentum = 1.0
        layer.register_forward_hook(self._merge)
        self._count = 0
        self._mean = self._deviations = torch.zeros(layer.num_features, dtype=torch.float64)

    def _merge(self, layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        """Add one batch by Chan's formula (Chan, Golub & LeVeque 1983)."""
        count = inputs[0].numel() // inputs[0].shape[1]
        total, apart = self._count + count, _float64(layer.running_mean) - self._mean
        within = _float64(layer.running_var) * (count - 1)
        self._deviations = self._deviations + within + apart**2 * (self._count * count / total)
        self._mean = self._mean + apart * (count / total)
        self._count = total

    def write_(self, layer: BatchNorm) -> None:
        """Set the layer's running mean and unbiased variance."""
        assert layer.running_mean is not None and layer.running_var is not None
        layer.running_mean.copy_(self._mean)
        layer.running_var.copy_(self._deviations / max(1, self._count - 1))


def _float64(statistics: Tensor | nn.Module) -> Tensor:
    """A layer's buffer on the CPU in float64, which not every device has."""
    assert isinstance(statistics, Tensor)
    return statistics.cpu().double()
