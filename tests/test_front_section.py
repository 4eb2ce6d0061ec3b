"""The recorded front on the page: what it says of our way and of its predictions."""

import dataclasses

import pytest

from compression.front_records import COMPENSATED, OURS, PRICED, RIVALS, FrontPoint, load_front
from compression.inputs import InputError
from compression.ui import front_section, size_plots
from compression.ui.front_section import remark


def point(way, goal_bytes, correct, *, goal="size", drop=0.0):
    return FrontPoint(way, goal, goal_bytes, goal_bytes, drop, goal_bytes, correct, 1000)


POINTS = [
    point(OURS, 100_000, 800, drop=0.1), point(RIVALS[0], 100_000, 700),
    point(COMPENSATED, 100_000, 900), point(OURS, 200_000, 850, drop=0.05),
    point(RIVALS[2], 200_000, 851), point(PRICED, 200_000, 880), point(PRICED, 100_000, 890),
    point(OURS, 150_000, 820, goal="random", drop=0.07),
]  # fmt: skip


def test_the_remark_counts_the_sizes_that_ours_wins():
    text = remark(POINTS, dense_correct=900)
    assert "on or above all of the usual ways at 1 of 2 sizes;" in text
    assert "entropy-constrained it is on or above every other way at 1 of 2. Each usual way" in text
    assert "width that is predicted to do it least damage; random is one draw; their" in text
    assert "their files fill 100 % of the size or more. Over 1 sizes drawn" in text
    assert "drawn at random the predicted drop was off by 1.00 points on average (at most 1" in text
    assert "Over 2 sizes in equal ratios the predicted drop was off by 0.00 points" in text
    assert "above the size asked for" not in text


def test_the_remark_says_how_the_usual_ways_were_set_up():
    tried = [
        dataclasses.replace(p, bits=4, packed_bytes=p.goal_bytes - 12_300) if p.way in RIVALS else p
        for p in POINTS
    ]
    text = remark(tried, dense_correct=900)
    assert "uses the bit width that is best on validation images; random" in text
    assert "their files fill 88 % of the size or more." in text


def test_the_remark_says_by_how_much_compensated_files_are_too_large():
    large = dataclasses.replace(point(COMPENSATED, 100_000, 900), packed_bytes=101_230)
    small = dataclasses.replace(large, packed_bytes=99_000)
    text = remark([*POINTS, large, small], dense_correct=900)
    assert text.endswith(
        "whose rounding was compensated came out up to 1.2 % above the size asked for."
    )


def test_goals_that_were_unknown_when_the_predictor_was_chosen_are_told_apart():
    unseen = [point(OURS, 150_000, 880, goal="random", drop=0.05)]
    text = remark(POINTS, 900, unseen)
    assert text.endswith(
        ". All of these sizes were measured before the way to predict was chosen. Over 1 more "
        "sizes, drawn at random afterwards, the predicted drop was off by 3.00 points on average "
        "(at most 3.00; 3.00 too large on average), the predicted size by 0.0 % (at most 0.0 %)."
    )
    without = remark(POINTS, 900)
    assert "afterwards" not in without
    assert without.endswith("sizes were measured before the way to predict was chosen.")


def test_a_drop_predicted_too_small_is_told_so():
    small = [point(OURS, 150_000, 800, goal="random", drop=0.05)]
    assert "(at most 5.00; 5.00 too small on average)" in remark([*POINTS[:5], *small], 900)


def test_a_size_without_a_rival_is_no_win():
    points = [point(OURS, 100_000, 800, drop=0.1), *POINTS[3:5]]
    assert "at 0 of 1 sizes (no usual way makes files of the other 1). Each" in remark(points, 900)


def test_the_figure_has_a_line_a_way_and_stars():
    figure = size_plots.front(POINTS, 0.9, 6_000_000, {"packed/x": (120_000, 0.899)})
    names = [trace.name for trace in figure.data]
    assert "rounding" in COMPENSATED and "rounding" in PRICED  # left out: a phone is narrow
    shorter = [way.replace("rounding ", "") for way in (COMPENSATED, PRICED)]
    ways = [OURS, RIVALS[0], shorter[0], RIVALS[2], shorter[1]]
    assert names == [*ways, f"{OURS}, predicted", "trained on, shipped here"]
    ours = figure.data[0]
    assert list(ours.x) == [size / 1024 for size in (100_000, 150_000, 200_000)]
    assert list(ours.y) == [80, 82, 85]
    assert list(figure.data[5].y) == pytest.approx([80, 83, 85])  # 90 less what was foretold
    assert 80 < figure.layout.yaxis.range[0] < 88 < 90 < figure.layout.yaxis.range[1]
    without = [each for each in POINTS if each.way != PRICED]
    figure = size_plots.front(without, 0.9, 6_000_000, {})
    assert figure.layout.yaxis.range[0] < 80


def test_stars_are_of_the_same_network_and_the_same_images(monkeypatch):
    def record(start, size_bytes):
        result = {"packed_bytes": size_bytes, "accuracy": 0.93}
        return {"start": start, "result": result, "bundled_test": {"correct": 1850, "total": 2000}}

    records = {
        "packed/a": record("resnet9/gridmask", 400_000),
        "packed/b": record("resnet9/distilled", 250_000),
        "packed/c": record("resnet9-s/gridmask", 200_000),
    }
    monkeypatch.setattr(front_section, "shrink_records", lambda: records)
    names = ["packed/a, from resnet9/gridmask", "packed/b, from resnet9/distilled"]
    for images, accuracy in ((2000, 0.925), (10_000, 0.93)):
        found = front_section.trained_files("resnet9/gridmask", images)
        assert found == dict(zip(names, [(400_000, accuracy), (250_000, accuracy)], strict=True))
    assert list(front_section.trained_files("resnet9-s/baseline", 10_000)) == [
        "packed/c, from resnet9-s/gridmask"
    ]


@pytest.mark.parametrize(("text", "came"), [("null", "nothing"), ("5", "5"), ("[" * 9**5, ".*")])
def test_a_file_that_holds_no_front_is_refused(tmp_path, text, came):
    (tmp_path / "front.json").write_text(text)
    with pytest.raises(InputError, match=f"front.json must be a record of a front, got {came}"):
        load_front(tmp_path / "front.json")
