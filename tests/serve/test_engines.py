"""Adapters for other base models load their base within a memory budget, and the least recently used base is unloaded."""

import json

import pytest
from peft import LoraConfig
from plain_adapters import plain_adapter

import app
from adapter_arena.errors import BaseModelError, RequestError
from adapter_arena.hub import RemoteAdapter
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.engines import Engines

OTHERS = ("roberta", "distilbert")
TEXT = ["a wonderful film"]


@pytest.fixture
def engine(tiny):
    """The engine of the app's own base model."""
    one = Engine(tiny)
    yield one
    one.close()


@pytest.fixture
def others(base_of):
    """Two more base models."""
    return [base_of(kind) for kind in OTHERS]


@pytest.fixture
def folders(others, tmp_path):
    """An adapter for each of them, which names the folder of its base."""
    made = []
    for base, kind in zip(others, OTHERS, strict=True):
        config = LoraConfig(
            task_type="SEQ_CLS",
            r=2,
            target_modules=list(base.architecture.attention),
            modules_to_save=list(base.architecture.head),
        )
        folder = plain_adapter(base, config, tmp_path / f"of-{kind}")
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(base.folder)}))
        made.append(folder)
    return made


def room_for(engine, bases, monkeypatch):
    """Set the budget to the size of these bases."""
    size = sum(Engines(engine).megabytes(base) for base in bases)
    monkeypatch.setenv("ARENA_MORE_BASES", str(size + 0.01))


def test_the_least_recently_used_base_is_unloaded(engine, others, monkeypatch):
    engines = Engines(engine)
    room_for(engine, others[:1], monkeypatch)
    first = engines.for_base(others[0])
    assert engines.for_base(others[0]) is first
    monkeypatch.setenv("ARENA_MORE_BASES", str(max(map(engines.megabytes, others)) + 0.01))
    second = engines.for_base(others[1])
    assert engines.all == [engine, second]
    with pytest.raises(RequestError, match="unloaded to make room"):
        first.run_exclusively(list)


def test_both_stay_if_there_is_room(engine, others, monkeypatch):
    engines = Engines(engine)
    room_for(engine, others, monkeypatch)
    first = engines.for_base(others[0])
    second = engines.for_base(others[1])
    assert engines.all == [engine, first, second]
    assert engines.for_base(engine.base) is engine


@pytest.mark.parametrize(
    ("budget", "reason"), [("0", "loads no further base model"), ("0.001", "has 0 MB for further")]
)
def test_a_base_over_the_budget_is_refused(engine, others, monkeypatch, budget, reason):
    monkeypatch.setenv("ARENA_MORE_BASES", budget)
    with pytest.raises(BaseModelError, match=reason):
        Engines(engine).for_base(others[0])


def test_local_adapters_of_other_bases_are_listed_and_load_theirs(engine, trained, folders, others, monkeypatch):
    room_for(engine, others, monkeypatch)
    found = app.read_adapters([trained, *folders], engine.base)
    assert found.left_out == []
    catalogue = Catalogue(engine)
    for adapter in found.adapters:
        engine.register(adapter)
    for adapter, base in found.of_other_bases:
        catalogue.register(adapter, base)
    name = folders[0].name
    assert catalogue.find(name).base_to_load_mb == pytest.approx(Engines(engine).megabytes(others[0]))
    compared = [answer.name for answer in catalogue.compare(TEXT[0])]
    assert name not in compared, "a comparison loads no base"
    alone = Engine(others[0])
    alone.add_folder(folders[0])
    assert catalogue.predict(TEXT, name)[0].scores == pytest.approx(alone.predict(TEXT)[0].scores, abs=1e-6)
    alone.close()
    assert catalogue.find(name).base_to_load_mb is None
    assert name in [answer.name for answer in catalogue.compare(TEXT[0])]


def test_without_a_budget_they_are_left_out_with_the_reason(engine, folders, monkeypatch):
    monkeypatch.setenv("ARENA_MORE_BASES", "0")
    found = app.read_adapters(folders, engine.base)
    assert found.of_other_bases == []
    assert "start the app with that base" in found.left_out[0]


def test_an_unknown_base_of_a_hub_adapter_is_an_error_with_its_name(engine):
    catalogue = Catalogue(engine)
    remote = RemoteAdapter("bob/other", "c0ffee", "nobody/no-such-base", "lora", None, None, None)
    catalogue.listing.adapters["bob/other"] = remote
    with pytest.raises(BaseModelError, match=r"bob/other needs another base model.*no-such-base"):
        catalogue.predict(TEXT, "bob/other")
