"""The page's and the README's parts for recorded fronts and studies, with records made up here."""

import asyncio
import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import pytest

from compression.front_records import COMPENSATED, OURS, PRICED, RIVALS, FrontPoint, save_front
from compression.study_records import WAYS
from compression.ui import front_section, recorded, study_section
from tests.test_assets import ASSETS

MACHINE = {"processor": "Some CPU", "threads": 2, "device": "cpu", "commit": "abc"}


def front_of(path, dense_bytes):
    """Three sizes by every way, but for the smallest, which no usual way reaches."""
    points = [
        FrontPoint(way, "size", goal, goal - 5, 0.1 / k, goal - 10, 700 + 50 * k + place, 1000)
        for k, goal in enumerate((100_000, 200_000, 300_000), start=1)
        for place, way in enumerate((*RIVALS, OURS, COMPENSATED, PRICED))
        if k > 1 or way not in RIVALS
    ]
    points.append(FrontPoint(OURS, "random", 150_000, 149_000, 0.08, 149_500, 780, 1000))
    about = {"command": f"front {path.stem}", "machine": MACHINE, "model": path.stem[6:]}
    about["settings"] = {"command": f"settings {path.stem}"}
    save_front(path, points, 900, dense_bytes, about)


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A folder of records in place of assets/."""
    results = tmp_path / "results"
    results.mkdir()
    front_of(results / "front-resnet9-s-baseline.json", 6_000_000)
    front_of(results / "front-resnet9-gridmask.json", 26_000_000)
    runs = [
        {
            "way": way, "seed": seed, "validation_accuracy": 0.9, "correct": 900 + 5 * k + seed,
            "total": 1000, "seconds": 60.0 * (k + 1), "curve": [0.5, 0.9], "machine": "Some CPU",
        }
        for seed in range(3)
        for k, way in enumerate(WAYS)
    ]  # fmt: skip
    about = {"command": "study s.json", "config": {"preset": "resnet9-s", "epochs": 2}}
    (results / "study-resnet9-s.json").write_text(json.dumps(about | {"runs": runs}))
    monkeypatch.setattr(recorded, "ASSETS", tmp_path)
    return tmp_path


def built(*sections):
    """A page of these sections, in a running loop: gr.Blocks would leave one of its own open. In a
    thread, since the browser's tests may have left their loop running in this one."""

    async def build():
        with gr.Blocks() as page:
            for section in sections:
                section.build()
        return page

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, build()).result()


def values(page, kind):
    return [block.value for block in page.blocks.values() if isinstance(block, kind)]


def test_two_fronts_have_a_tab_each(assets):
    page = built(front_section)
    tabs = [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]
    assert tabs == ["resnet9-s/baseline", "resnet9/gridmask"]
    assert len(values(page, gr.Plot)) == 2
    text = " ".join(str(value) for value in values(page, gr.HTML))
    assert "at 2 of 2 sizes (no usual way makes files of the other 1)" in text
    assert "Over 1 sizes drawn at random the predicted drop was off by 4.00 points" in text
    told = values(page, gr.Markdown)
    assert sum("on Some CPU, 2 threads: 16 files" in line for line in told) == 2


def test_a_study_of_nine_runs_is_told(assets):
    page = built(study_section)
    (table,) = [value for value in values(page, gr.HTML) if "<table>" in value]
    assert "90.10%" in table and "± 0.10, 3 seeds" in table and "3.0 min" in table
    assert "with GridMask is better than without, by 1.00" in table
    assert any("on Some CPU: resnet9-s, 2 epochs a run" in v for v in values(page, gr.Markdown))
    (figure,) = values(page, gr.Plot)
    labels = {x for line in json.loads(figure["plot"])["data"] for x in line["x"]}
    assert {x.replace("<br>", " ") for x in labels} == set(study_section.NAMES.values())


def test_without_records_nothing_stands_there(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "ASSETS", tmp_path)
    page = built(front_section, study_section)
    assert not page.blocks


def test_the_readme_gets_a_table_for_each_front(assets, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_table", ASSETS / "results/make_table.py")
    make_table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_table)
    monkeypatch.setattr(make_table, "HERE", assets / "results")
    lines = make_table._fronts()
    heads = [line for line in lines if line.startswith("| Goal")]
    assert len(heads) == 2 and heads[0].endswith(f"| {OURS}, predicted |")
    first = next(line for line in lines if line.startswith("| 98 KiB"))
    assert first == "| 98 KiB | 75.50% | 75.40% | 75.30% |  |  |  | 80.00% |"
    assert "### How small `resnet9-gridmask` gets with no weight trained" in lines
    text = "On 1,000 test images, of which the dense model has 90.00% right; by `front "
    (told,) = (line for line in lines if line.startswith(text) and "resnet9-gridmask" in line)
    assert "(Some CPU, 2 threads, at commit abc); " in told
    assert told.endswith("damage was measured by `settings front-resnet9-gridmask`:")
    other = {"machine": MACHINE, "earlier_machines": [MACHINE | {"commit": "old"}]}
    assert make_table._where(other).startswith("Some CPU, 2 threads, at commits old and abc: what")
