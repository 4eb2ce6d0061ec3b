"""The Compare tab's latencies: each variant's own, in the cells of its row and in the visit."""

import re

import compression
from compression.latency import Latency, LatencyRound
from compression.ui import compare_tab
from tests import visit_cases

explorer = visit_cases.explorer
start = visit_cases.start
pruned = visit_cases.pruned


def timed(models):
    """Of the last model 3 ms for one image, of the one before it twice as much, ...; for 256
    images ten times that."""
    return {
        key: tuple(
            Latency(size, 3.0 * k * scale, 1.5 * k * scale, 4.5 * k * scale, 15, 2, "cpu")
            for size, scale in ((1, 1), (256, 10))
        )
        for k, key in enumerate(reversed(models), start=1)
    }


def test_cells_have_the_median_and_p10_to_p90_of_their_own_variant(monkeypatch, explorer, pruned):
    monkeypatch.setattr(compare_tab, "SHIPPED", ())
    monkeypatch.setattr(explorer, "packed", {})
    monkeypatch.setattr(compare_tab, "TELL_SECONDS", 0)
    given = []
    monkeypatch.setattr(
        compression,
        "measure_latency_by_round",
        lambda models: (
            given.append(models) or iter([LatencyRound(0.25, {}), LatencyRound(1.0, timed(models))])
        ),
    )
    *waiting, (session, status, table, *_) = compare_tab.measure(explorer, pruned)
    assert all("Timing 2 variants in turn" in told for _, told, *_ in waiting)
    assert [re.findall("width:([0-9.]+)%", told) for _, told, *_ in waiting] == [
        ["0.0"], ["25.0"], ["100.0"],
    ]  # fmt: skip
    monkeypatch.setattr(compare_tab, "TELL_SECONDS", 60)  # said seldom, or it is timed along
    assert len(list(compare_tab.measure(explorer, pruned))) == 2
    models, _ = given
    keys = [pruned.start, pruned.pruned]
    assert models == {key: explorer.variant(key).model for key in keys}
    assert session.latency == tuple(timed(models).items())
    assert session == pruned.with_latency(timed(models))
    rows = re.findall("<tr>(.*?)</tr>", table)[1:]
    latencies = [re.findall("<td>(.*?)</td>", row)[-2:] for row in rows]
    assert latencies == [
        ["6.0 ms<small>3.0 to 9.0</small>", "60.0 ms<small>30.0 to 90.0</small>"],
        ["3.0 ms<small>1.5 to 4.5</small>", "30.0 ms<small>15.0 to 45.0</small>"],
    ]
    assert all(explorer.variant(key).name in row for key, row in zip(keys, rows, strict=True))
    assert "2 threads, median of 15 rounds" in status
