"""Training throughput beside the float32 loop of most tutorials, a few steps of each in turn."""

from collections.abc import Callable, Iterator
from itertools import islice

from benchmarks import fresh
from benchmarks.limits import Rates, layer_macs
from benchmarks.pairs import Work, compared, in_turn
from benchmarks.peers.training import BATCH, training_steps
from benchmarks.results import Row
from benchmarks.subjects import images_of
from compression.recipes import BASELINE, TrainConfig
from compression.resnet9 import build_model
from compression.training import StepResult, train_by_step

OURS, TUTORIAL = "our recipe", "the tutorials' float32 loop"
ROUNDS = 5
IMAGES = 45_000


def our_steps(config: TrainConfig) -> Iterator[StepResult]:
    """Our training, step by step, as long as anybody asks."""
    images = images_of("train", IMAGES)
    results = train_by_step(build_model(), images, images.head(1), config)
    return (result for result in results if isinstance(result, StepResult))


def run(quick: bool, rates: Rates) -> Iterator[Row]:
    """Seconds for one batch of ours, and for as many images by the peer."""
    count = BASELINE.batch_size
    works = [_work(name, quick) for name in (OURS, TUTORIAL)]
    ours, tutorial = in_turn(works, 2 if quick else ROUNDS, "training")
    held = {name: fresh.peak_mib("benchmarks.training", name, quick) for name in (OURS, TUTORIAL)}
    fastest = "bfloat16" if rates.bfloat16_flops else "float32"
    macs = 3 * count * sum(layer_macs(build_model()).values())
    speeds = [count / sorted(t.seconds)[len(t.seconds) // 2] for t in (ours, tutorial)]
    yield compared(
        "training",
        f"training on {count} images",
        ours,
        tutorial,
        at_least=2.5 if rates.bfloat16_flops else None,
        ours_mib=held[OURS],
        peer_mib=held[TUTORIAL],
        limit_s=rates.compute_seconds(macs, fastest),
        limit_from=f"forward and twice that backward, in {fastest}",
        note=f"{speeds[0]:,.0f} and {speeds[1]:,.0f} images/s; batches of {count} and of {BATCH}",
    )


def _work(name: str, quick: bool) -> Work:
    """A call that trains on one batch of ours, or on as many images; on a quarter when quick."""
    if name == OURS:
        steps = our_steps(BASELINE)
        next(steps)
        return Work(name, lambda _: next(steps))
    steps = training_steps(build_model(), images_of("train", IMAGES))
    next(steps)
    count = 1 if quick else BASELINE.batch_size // BATCH
    return Work(name, lambda _: list(islice(steps, count)), count * BATCH / BASELINE.batch_size)


def prepare(name: str, quick: bool) -> Callable[[], object]:
    """The work whose peak memory is measured: the first steps, with what they allocate."""
    if name == OURS:
        steps = our_steps(BASELINE)
        return lambda: list(islice(steps, 1 if quick else 3))
    steps = training_steps(build_model(), images_of("train", IMAGES))
    return lambda: list(islice(steps, 1 if quick else 3))
