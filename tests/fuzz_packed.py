"""Fuzz the packed file's readers with atheris (`pip install atheris`), by coverage of their code.

`python tests/fuzz_packed.py -max_total_time=600`: every input is tried as it is and under a true
checksum. Refused with a PackedFormatError, or loaded as finite numbers and accounted for to the
last byte; anything else is a find. The options are libFuzzer's; `--record FILE` before them writes
what was tried as JSON. Not part of the test suite, which has hypothesis do the same in short.
"""

import importlib.metadata
import json
import re
import subprocess
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

from compression.hardware import machine_record

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


def recorded(out: Path, options: list[str]) -> int:
    """Run with these options in a process of its own, and write what libFuzzer counted; its exit
    status, which is 0 where nothing was found."""
    with tempfile.TemporaryDirectory() as finds:
        command = [sys.executable, __file__, *options, "-print_final_stats=1"]
        done = subprocess.run(
            [*command, f"-artifact_prefix={finds}/"], text=True, stderr=subprocess.PIPE, check=False
        )
        found = sorted(file.name for file in Path(finds).iterdir())
    counts = {key: int(n) for key, n in re.findall(r"stat::(\w+):\s+(\d+)", done.stderr)}
    covered = [int(n) for n in re.findall(r"cov: (\d+)", done.stderr)]
    content = {
        "command": f"python tests/fuzz_packed.py {' '.join(options)}",
        "machine": machine_record(torch.device("cpu")),
        "atheris": importlib.metadata.version("atheris"),
        "status": done.returncode,
        "finds": found,
        "edges_first": covered[0] if covered else 0,
        "edges": covered[-1] if covered else 0,
        "libfuzzer": counts,
    }
    out.write_text(json.dumps(content, indent=1) + "\n")
    return done.returncode


if __name__ == "__main__":
    if sys.argv[1:2] == ["--record"]:
        sys.exit(recorded(Path(sys.argv[2]), sys.argv[3:]))
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for k, seed in enumerate(seeds()):
        (corpus / f"seed-{k}").write_bytes(seed)
    torch.set_num_threads(1)
    # Instrumented comparisons never let go of the arrays that they compared (atheris 3.0: loading
    # one sound file takes 4 MB more each time, and none without instrumentation).
    options = ["-max_len=400000", "-timeout=20", "-rss_limit_mb=16384"]
    atheris.Setup([sys.argv[0], *options, *sys.argv[1:], str(corpus)], one_input)
    atheris.Fuzz()
