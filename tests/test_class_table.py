"""The Compare tab's table of classes: its figures, its tints, and what it says of chance."""

import re
from types import SimpleNamespace

from compression.data import CIFAR10_CLASSES
from compression.evaluation import ClassReport, wilson_interval
from compression.ui.class_table import BETTER, WORSE, class_table

EVEN = [0.9] * 10


def variant(name, recalls, support=200):
    reports = [
        ClassReport(name=each, precision=0.5, recall=recall, f1=0.5, support=support)
        for each, recall in zip(CIFAR10_CLASSES, recalls, strict=True)
    ]
    return SimpleNamespace(name=name, evaluation=SimpleNamespace(per_class=tuple(reports)))


def cells(shown):
    rows = re.findall("<tr>(.*?)</tr>", shown.partition("<tbody>")[2])
    return [re.findall(r"<td([^>]*)>([^<]*)</td>", row) for row in rows]


def test_each_variant_has_a_row_with_what_it_gets_right_of_each_class():
    spread = [k / 10 for k in range(10)]
    shown = class_table([variant("a <b>", EVEN), variant("c", spread)], None)
    assert re.findall("<th>(.*?)</th>", shown) == ["Variant", *CIFAR10_CLASSES]
    first, second = cells(shown)
    assert [text for _, text in first] == ["a &lt;b&gt;"] + ["90.0"] * 10
    assert [text for _, text in second] == ["c"] + [f"{10 * k}.0" for k in range(10)]
    assert not any(style for style, _ in first + second) and "Orange" not in shown


def test_tints_tell_more_from_fewer_and_deepen_with_the_difference():
    recalls = [0.9, 0.93, 0.87, 0.8, 0.3, *EVEN[5:]]
    dense = variant("dense", EVEN)
    same, row = cells(class_table([dense, variant("pruned", recalls)], dense))
    assert not any(style for style, _ in same)
    styles = [style for style, _ in row[1:]]
    assert not any([styles[0], *styles[5:]])
    assert BETTER in styles[1] and all(WORSE in style for style in styles[2:5])
    depth = [float(re.findall(r"/ ([\d.]+)\)", style)[0]) for style in styles[1:5]]
    assert depth[0] == depth[1] < depth[2] == depth[3] == 0.5
    said = "Orange: fewer right than dense; green: more; strongest from 10 points on."
    assert said in class_table([dense], dense)


def test_chance_is_told_by_the_number_of_images():
    for images, wide in ((200, "85% to 93%"), (1000, "88% to 92%")):
        low, high = wilson_interval(round(0.9 * images), images)
        assert f"{low:.0%} to {high:.0%}" == wide
        shown = class_table([variant("a", EVEN, images)], None)
        assert f"is {wide} for one class of {images:,} images" in shown


def test_without_variants_it_says_so():
    assert "No variant" in class_table([], None)
