"""The tab Train through the page's own functions, and what it shows."""

import contextlib
import dataclasses
from pathlib import Path

import gradio as gr
import pytest
import torch
from conftest import wait_until

from adapter_arena.errors import RequestError
from adapter_arena.jobs import manager, plan
from adapter_arena.jobs.curves import Run
from adapter_arena.jobs.job import Choices, Job, Saved, State
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.ui import page, train_form, train_views, training_views
from adapter_arena.ui.limits import RateLimiter
from adapter_arena.ui.metrics import Metrics
from adapter_arena.ui.train_tab import TrainTab

ROWS = "".join(
    f"{'a lovely film' if n % 2 else 'a dreadful film'} {n},{'good' if n % 2 else 'bad'}\n" for n in range(120)
)
# It finishes at once, with the adapter in the folder `adapter`.
TRAINER = """
import shutil, sys
from pathlib import Path

name = next(word.partition("=")[2] for word in sys.argv if word.startswith("--name="))
shutil.copytree({adapter!r}, Path("adapters") / name)
"""


@pytest.fixture(scope="module")
def engine(tiny):
    engine = Engine(tiny, dtype=torch.float32, merged_mb=0)
    yield engine
    engine.close()


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "films.csv"
    path.write_text("review,sentiment\n" + ROWS)
    return str(path)


@pytest.fixture
def catalogue(engine):
    return Catalogue(engine)


@pytest.fixture
def tab(catalogue, tmp_path, monkeypatch):
    """The tab of an app with its own folder of trainings."""
    monkeypatch.setenv("ARENA_TRAIN_FOLDER", str(tmp_path / "trainings"))
    with gr.Blocks() as demo:
        yield TrainTab(demo, catalogue)


@pytest.fixture
def fast_trainer(trained, tmp_path, monkeypatch):
    """Replace the trainer by one that finishes at once, and the plan of its runs."""
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER.format(adapter=str(trained)))
    monkeypatch.setattr(manager, "TRAINER", script)
    run = plan.PlannedRun("films", "lora", 2, 16, 256, 1000, 2000, 10.0)
    monkeypatch.setattr(plan, "runs", lambda choices: [dataclasses.replace(run, name=choices.name)])


def read(tab, data: str, **chosen) -> list:
    """Drop a file and return the values of the form's inputs, with those that were `chosen`."""
    form = tab._form
    updates = form._read_file(data, "")
    values = {component: component.value for component in form.inputs}
    values |= {form._contents: updates[form._contents], form.file: data, form._name: updates[form._name]}
    for name, value in chosen.items():
        values[getattr(form, f"_{name}")] = value
    return list(values.values())


def test_a_trained_adapter_is_listed_without_a_restart(fast_trainer, tab, catalogue, data):
    updates = tab._start({}, *read(tab, data))
    mine = updates[tab._mine]
    job = tab._jobs.find(mine["open"])
    assert mine["ids"] == [job.id]
    wait_until(lambda: not job.state.is_active)
    wait_until(lambda: [entry.name for entry in catalogue.entries] == ["films"])
    assert not isinstance(catalogue.predict(["a lovely film"], "films")[0], Exception)
    reloaded = tab._load(mine)
    assert reloaded[tab._view_column].visible is True
    assert "Done in" in reloaded[tab._view._status]
    assert reloaded[tab.trained] == "films"
    with pytest.raises(gr.Error, match="There is an adapter named films"):
        tab._start(mine, *read(tab, data))
    second = tab._start(mine, *read(tab, data, name="films-2"))[tab._mine]
    assert second["ids"][1] == job.id
    wait_until(lambda: "films-2" in {entry.name for entry in catalogue.entries})
    tab._delete(second, job.id)
    assert [entry.name for entry in catalogue.entries] == ["films-2"]
    assert not job.folder.exists()


def test_without_an_adapter_the_page_can_train_one_unless_that_is_off(tiny, monkeypatch):
    def tabs() -> list[str]:
        demo = page.build(catalogue, Metrics(catalogue), RateLimiter())
        return [block.label for block in demo.blocks.values() if isinstance(block, gr.Tab)]

    with contextlib.closing(Engine(tiny, dtype=torch.float32, merged_mb=0)) as engine:
        catalogue = Catalogue(engine)
        assert tabs()[:2] == ["Compare", "Train"]
        monkeypatch.setenv("ARENA_TRAIN", "off")
        assert tabs() == []


def test_another_visitor_of_a_space_does_not_see_a_training(fast_trainer, tab, data, monkeypatch):
    mine = tab._start({}, *read(tab, data))[tab._mine]
    assert "films.csv" in tab._load(None)[tab._history]  # on one's own machine all are listed
    mine["open"] = None
    monkeypatch.setenv("SPACE_ID", "someone/space")
    assert "films.csv" in tab._load(mine)[tab._history]
    for other in (None, {}, {"ids": "x", "open": 3}, {"ids": ["../.."], "open": ".."}):
        updates = tab._load(other)
        assert (updates[tab._history], updates[tab._view_column].visible) == ("", False)
    wait_until(lambda: not tab._jobs.find(mine["ids"][0]).state.is_active)


def test_a_file_without_a_label_column_asks_for_it(tab, tmp_path):
    path = tmp_path / "films.csv"
    path.write_text("words,which\n" + ROWS)
    form = tab._form
    updates = form._read_file(str(path), "")
    assert "No label column among words, which: name it with the field Label." in updates[form._read_panel]
    assert updates[form.start].interactive is False
    assert updates[form._label].choices[1:] == [("words", "words"), ("which", "which")]
    updates = form._read_columns(str(path), "words", train_form.NO_COLUMN, "which", "")
    assert "2 classes" in updates[form._read_panel]
    assert updates[form.start].interactive is True


def test_a_bad_file_is_one_line(tab, tmp_path):
    path = tmp_path / "films.csv"
    path.write_bytes(b"%PDF-1.4")
    form = tab._form
    updates = form._read_file(str(path), "")
    assert "it is a PDF" in updates[form._read_panel]
    assert form._plan(None, None, *[None] * 9)[1].interactive is False


def test_the_number_of_rows_is_a_number_or_all(monkeypatch):
    assert [train_form._bounded(rows) for rows in ("", "all", "1,000")] == [None, None, 1000]
    monkeypatch.setenv("ARENA_TRAIN_ROWS", "500")
    assert [train_form._bounded(rows) for rows in ("", "1,000", "20")] == [500, 500, 20]
    for rows in ("many", "0", "-3"):
        with pytest.raises(RequestError, match="enter a number from 1 up"):
            train_form._bounded(rows)


def test_the_plan_shows_time_memory_and_the_limit():
    run = plan.PlannedRun("films", "lora", 2, 16, 256, 150_000, 22_000_000, 900.0)
    shown = train_views.plan([run], 100, 3700.0, 0)
    assert "about 1 h 2 min" in shown
    assert "up to 0.9 of" in shown
    assert "150 k of 22 M" in shown
    assert "ARENA_TRAIN_MINUTES" not in shown
    assert "stopped after 30 min (ARENA_TRAIN_MINUTES)" in train_views.plan([run], 100, 3700.0, 1800)
    assert "known once it runs" in train_views.plan([run], 100, None, 0)
    assert "more memory than this machine has" in train_views.plan([dataclasses.replace(run, megabytes=1e9)], 1, 1.0, 0)


@pytest.mark.parametrize(
    ("state", "ahead", "shown"),
    [
        (State.QUEUED, 1, "1 training is ahead of yours"),
        (State.QUEUED, 2, "2 trainings are ahead of yours"),
        (State.STOPPED, 0, "Stopped. Resume continues from step 40."),
        (State.RUNNING, 0, "Step 40 of 100, about 2 min left"),
        (State.INTERRUPTED, 0, "Resume continues from the last checkpoint"),
        (State.FAILED, 0, "exit status 0: it printed nothing"),
    ],
)
def test_the_state_of_a_training_is_one_line(tmp_path, data, state, ahead, shown):
    job = Job.create(tmp_path / "job", Choices("films.csv", "films", "base", ("lora",)), Path(data))
    job.save(Saved())
    run = Run("films", "lora", phase="training", step=40, steps=100, seconds_left=100.0)
    assert shown in training_views.status(job, state, [run], ahead)


def test_the_tab_can_be_switched_off(catalogue, trained, monkeypatch):
    catalogue.engine.add_folder(trained)
    for switch in ("on", "off"):
        monkeypatch.setenv("ARENA_TRAIN", switch)
        demo = page.build(catalogue, Metrics(catalogue), RateLimiter())
        tabs = [block.label for block in demo.blocks.values() if isinstance(block, gr.Tab)]
        assert ("Train" in tabs) is (switch == "on")
    catalogue.engine.remove(trained.name)


@pytest.mark.slow
def test_a_tiny_training_through_the_page(tab, catalogue, tiny, data):
    values = read(tab, data, base=tiny.id, epochs=1, name="tiny-films")
    shown, start = tab._form._plan(*values)
    assert "Trained parameters" in shown
    assert start.interactive is True
    job = tab._jobs.find(tab._start({}, *values)[tab._mine]["open"])
    seen = set()

    def shows_result() -> bool:
        updates = tab._view._refresh(job.id, None)
        seen.add(updates[tab._view._status])
        return not job.state.is_active

    wait_until(shows_result)
    assert job.state is State.DONE, job.tail()
    assert any("Step" in line for line in seen)
    wait_until(lambda: "tiny-films" in {entry.name for entry in catalogue.entries})
    updates = tab._view._refresh(job.id, None)
    assert "done" in updates[tab._view._table]
