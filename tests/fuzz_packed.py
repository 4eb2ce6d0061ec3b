"""Fuzz the packed file's readers with atheris (`pip install atheris`), by coverage of their code.

`python tests/fuzz_packed.py -max_total_time=600`: every input is tried as it is and under a true
checksum. Refused with a PackedFormatError, or loaded as finite numbers and accounted for to the
last byte; anything else is a find. The options are libFuzzer's. Not part of the test suite, which
has hypothesis do the same in short.
"""

import sys
import tempfile
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

with atheris.instrument_imports(include=["compression.packing", "compression.packing_file",
                                         "compression.packing_reader", "compression.packing_codes",
                                         "compression.packing_vectors"]):  # fmt: skip
    import torch

    from compression.model import build_model, prunable_layers
    from compression.packing import PackedFormatError, inspect_packed, load_packed, pack
    from compression.packing_file import signed
    from compression.pruning import prune
    from compression.quantization import quantize

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-packed-"))


def seeds() -> list[bytes]:
    """Sound files of each kind of layer: quantized with and without zeros, and float32."""
    model = build_model("resnet9-s", seed=0).eval()
    cut = prune(model, dict.fromkeys(prunable_layers(model), 0.95))
    small = {"conv1": 4, "conv2": 2, "res1.first": 8}
    return [
        pack(quantize(cut.model, 2, cut.masks)),
        pack(quantize(cut.model, small, cut.masks)),
        pack(quantize(model, 1)),
    ]


def loads(content: bytes) -> None:
    """One file: refused in a sentence, or a network of finite numbers."""
    path = FOLDER / "x.safetensors"
    path.write_bytes(content)
    try:
        model = load_packed(path)
    except PackedFormatError:
        return
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    try:
        info = inspect_packed(path)
    except PackedFormatError:
        return
    assert info.total_bytes == len(content) == sum(info.parts.values())


def one_input(content: bytes) -> None:
    """What libFuzzer calls."""
    loads(content)
    try:
        forged = signed(content)
    except (PackedFormatError, ValueError, KeyError, TypeError, RecursionError):
        return  # so broken that there is no place for a checksum
    loads(forged)


if __name__ == "__main__":
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for k, seed in enumerate(seeds()):
        (corpus / f"seed-{k}").write_bytes(seed)
    torch.set_num_threads(1)
    options = ["-max_len=400000", "-timeout=20", "-rss_limit_mb=4096"]
    atheris.Setup([*sys.argv, *options, str(corpus)], one_input)
    atheris.Fuzz()
