"""`evaluate` beside a plain eager float32 loop: time, memory, and the same predictions."""

from collections.abc import Callable, Iterator

from benchmarks import fresh
from benchmarks.limits import Rates, layer_macs
from benchmarks.pairs import Work, compared, in_turn
from benchmarks.peers.training import BATCH, eager_predictions
from benchmarks.results import Row
from benchmarks.subjects import images_of, shipped_model
from compression.evaluation import evaluate

OURS, EAGER = "evaluate", "a plain eager loop"
ROUNDS, IMAGES, QUICK_IMAGES = 5, 10_000, 256


def run(quick: bool, rates: Rates) -> Iterator[Row]:
    """The comparison, in float32 on both sides."""
    model, images = shipped_model(), images_of("test", QUICK_IMAGES if quick else IMAGES)
    for call in _calls(quick, 64).values():
        call()
    works = [Work(name, lambda _, call=call: call()) for name, call in _calls(quick).items()]
    ours, eager = in_turn(works, 2 if quick else ROUNDS, "evaluation")
    held = {name: fresh.peak_mib("benchmarks.evaluation", name, quick) for name in (OURS, EAGER)}
    differing = int((ours.answers[-1].predictions != eager.answers[-1]).sum())
    macs = len(images) * sum(layer_macs(model).values())
    yield compared(
        "evaluation",
        f"{len(images):,} images, float32",
        ours,
        eager,
        at_least=2,
        ours_mib=held[OURS],
        peer_mib=held[EAGER],
        limit_s=rates.compute_seconds(macs),
        limit_from="the network's arithmetic in float32",
        agreement=f"{differing} of {len(images):,} predictions differ",
        note=f"the loop's batches hold {BATCH} images",
    )


def _calls(quick: bool, count: int | None = None) -> dict[str, Callable[[], object]]:
    """Both ways, from uint8 images to predictions."""
    model = shipped_model()
    data = images_of("test", count or (QUICK_IMAGES if quick else IMAGES))
    return {
        OURS: lambda: evaluate(model, data.images, data.labels),
        EAGER: lambda: eager_predictions(model, data.images),
    }


def prepare(name: str, quick: bool) -> Callable[[], object]:
    """The work whose peak memory is measured; what a first call loads is not the work's."""
    _calls(quick, 1)[name]()
    return _calls(quick)[name]
