"""Fuzz the packed file's readers with atheris (`pip install atheris`), by coverage of their code.

`python tests/fuzz_packed.py -max_total_time=600`: every input is tried as it is and under a true
checksum; half of the changes are to the header's own parts, since bytes at random hardly ever give
another header. Refused with a PackedFormatError, or loaded as finite numbers and accounted for to
the last byte; anything else is a find. The options are libFuzzer's; `--record FILE` before them
writes what was tried as JSON. Not part of the test suite, where hypothesis does so in short.
"""

import importlib.metadata
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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

TYPES = ("U8", "I8", "BOOL", "U16", "F16", "BF16", "I32", "F32", "F64", "F8_E5M2", "F4", "X")
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
    info = inspect_packed(path)  # what loads is accounted for
    assert info.total_bytes == len(content) == sum(info.parts.values())


def one_input(content: bytes) -> None:
    """What libFuzzer calls."""
    loads(content)
    try:
        forged = signed(content)
    except (PackedFormatError, ValueError, KeyError, TypeError, RecursionError):
        return  # so broken that there is no place for a checksum
    loads(forged)


def mutated(content: bytes, most: int, seed: int) -> bytes:
    """libFuzzer's own change of bytes, or one of the header's parts under a true length."""
    chosen, length = random.Random(seed), int.from_bytes(content[:8], "little")
    try:
        if chosen.random() < 0.5:
            raise ValueError
        header = json.loads(content[8 : 8 + length])
        _change(header, chosen)
        text = json.dumps(header).encode()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return atheris.Mutate(content, most)
    text += b" " * (-len(text) % 8)
    return (len(text).to_bytes(8, "little") + text + content[8 + length :])[:most]


def _change(header: dict[str, Any], chosen: random.Random) -> None:
    """One part of the header as another of its kind, or of none."""
    name = chosen.choice([name for name in header if name != "__metadata__"])
    odd = chosen.choice(
        [0, 1, -1, 7, 255, 256, 2**31, 2**62, None, "", [], {}, True, 0.5, "\ud800"]
    )
    place = chosen.randrange(6)
    if place == 0:
        header[name]["dtype"] = chosen.choice(TYPES)
    elif place == 1:
        header[name]["shape"] = chosen.choice([[], [0], [odd], [*header[name]["shape"], 1], odd])
    elif place == 2:
        header[name]["data_offsets"][chosen.randrange(2)] = odd
    elif place == 3:
        header[chosen.choice([*header, "other"])] = header.pop(name)
    else:
        about = json.loads(header["__metadata__"]["packed"])
        if place == 4:
            about[chosen.choice([*about, "other"])] = odd
        else:
            layer = chosen.choice([*about["layers"], "other"])
            about["layers"][layer] = chosen.choice([[chosen.randrange(34), odd], [odd, 0], odd])
        header["__metadata__"]["packed"] = json.dumps(about)


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
    atheris.Setup(
        [sys.argv[0], *options, *sys.argv[1:], str(corpus)], one_input, custom_mutator=mutated
    )
    atheris.Fuzz()
