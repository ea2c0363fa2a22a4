"""A decoder in shards on the Hub: trained on by id, its adapter pushed, found, served, and its base loaded on demand."""

import gc
import weakref

import gradio as gr
import huggingface_hub
import pytest
from conftest import make_base
from tiny_types import shard

import train_space
from adapter_arena import results
from adapter_arena.adapters import cards
from adapter_arena.models import bases
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.ui import comparison
from adapter_arena.ui.adapters_tab import AdaptersTab

BASE = "bob/llama"
ADAPTER = "alice/tiny-decoder"
TEXTS = ["a wonderful film", "a dull, endless bore of a film"]
pytestmark = pytest.mark.usefixtures("no_pictures")


def use_empty_caches(folder, monkeypatch) -> None:
    """Make every file be downloaded again, as on another machine."""
    monkeypatch.setenv("ARENA_CACHE", str(folder / "arena"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(huggingface_hub.file_download, "HF_HUB_CACHE", str(folder / "hub"), raising=False)
    bases.locate.cache_clear()


@pytest.fixture
def here(hub_server, work, monkeypatch):
    """The engine that serves the adapter where it was trained; the adapter and its base are on the Hub."""
    base = make_base(work / "llama", "llama")
    shard(base.folder)
    hub_server.add_repo(BASE, {path.name: path.read_bytes() for path in base.folder.iterdir()})
    use_empty_caches(work / "first", monkeypatch)
    flags = ["--dataset=sample", "--n-train=64", "--n-test=40", "--n-validation=20", "--epochs=1", "--max-length=64"]
    assert train_space.main([*flags, "--method=lora", "--base-model", BASE, "--name=tiny-decoder", "--push"]) == 0
    engine = Engine(bases.find(BASE))
    engine.add_folder(work / "adapters" / "tiny-decoder")
    use_empty_caches(work / "second", monkeypatch)
    yield engine
    engine.close()


def test_an_adapter_for_a_decoder_is_found_and_served_elsewhere(hub_server, here, tiny, base_of, work, monkeypatch):
    expected = [answer.scores for answer in here.predict(TEXTS, "tiny-decoder")]
    own = Catalogue(Engine(bases.find(BASE)), namespace="alice")
    assert own.refresh().reached
    assert [answer.scores for answer in own.predict(TEXTS, ADAPTER)] == expected
    own.engine.close()
    card_answers_alike(work, expected[0])

    monkeypatch.setenv("ARENA_MORE_BASES", "0")
    catalogue = Catalogue(Engine(tiny), namespace="alice")
    catalogue.refresh()
    assert catalogue.entries == []
    monkeypatch.setenv("ARENA_MORE_BASES", "10")
    catalogue.refresh()
    entry = catalogue.find(ADAPTER)
    assert (entry.base_model, entry.loads_base, entry.base_to_load_mb) == (BASE, True, None)
    assert "size is checked before it loads" in entry.base_note
    choosing_it_loads_nothing(catalogue)
    answers = catalogue.predict(TEXTS, ADAPTER)
    assert [answer.scores for answer in answers] == expected
    assert not catalogue.find(ADAPTER).loads_base

    second = weakref.ref(catalogue.engine_for(catalogue.find(ADAPTER)))
    assert second().base.id == BASE
    other = base_of("distilbert")
    monkeypatch.setenv("ARENA_MORE_BASES", str(catalogue._engines.megabytes(other) + 0.01))
    catalogue._engines.for_base(other)
    gc.collect()
    assert second() is None, "its memory is free"
    entry = catalogue.find(ADAPTER)
    assert entry.loads_base
    assert f"{entry.base_to_load_mb:,.0f} MB" in entry.base_note
    monkeypatch.setenv("ARENA_MORE_BASES", "10")
    # Alone, on some CPUs the last digits differ from those in a batch.
    assert catalogue.predict(TEXTS[:1], ADAPTER)[0].scores == pytest.approx(expected[0], abs=1e-6)


def choosing_it_loads_nothing(catalogue) -> None:
    """Choose the adapter in Adapters and in Compare."""
    with gr.Blocks() as demo:
        with gr.Tabs() as tabs:
            pass
        adapters = AdaptersTab(demo, catalogue, tabs)
    shown = adapters._show(ADAPTER)
    assert "size is checked before it loads" in shown[adapters._overview]
    assert "size is checked before it loads" in shown[adapters._files]
    price = " ".join(str(update) for update in adapters._show_price(ADAPTER).values())
    assert f"{ADAPTER}@" in price
    assert "Nothing to download. Its base model takes <b>" in price  # both are in the cache of this machine
    view = comparison.Comparison(catalogue).answer(comparison.Query(TEXTS[0], "", ADAPTER), None)
    assert f'data-load="{ADAPTER}"' in view.table
    assert [engine.base.id for engine in catalogue._engines.all] == [catalogue.engine.base.id]


def card_answers_alike(work, expected: dict[str, float]) -> None:
    """Run the code on the card, which names the base and the adapter by their ids."""
    found = results.read(work / "adapters" / "tiny-decoder")
    assert found.base_model.pools_last_token
    text = next((example.text for example in found.evaluation.examples.values() if example.text), None)
    code = cards.snippets(found)["peft"].replace(repr(text).replace("'", '"'), f'"{TEXTS[0]}"')
    assert f'"{BASE}"' in code
    scope: dict = {}
    exec(code.replace(f'text = "{text}"', f'text = "{TEXTS[0]}"'), scope)
    assert scope["text"] == TEXTS[0]
    assert scope["probabilities"] == pytest.approx(list(expected.values()), abs=0.04)
    assert scope["model"].config.pad_token_id == scope["tokenizer"].pad_token_id
