"""An adapter of the Hub is described before it is downloaded, with the price of another base model."""

import json

import pytest

from adapter_arena.adapters import store
from adapter_arena.errors import AdapterError, BaseModelError, HubError
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.ui import adapter_loading

CONFIG = {"peft_type": "LORA", "task_type": "SEQ_CLS", "r": 4, "target_modules": ["query", "value"]}
WEIGHTS = b"x" * 1_500_000
"""Nothing reads them before the adapter is loaded."""


@pytest.fixture
def catalogue(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("ARENA_CACHE", str(tmp_path / "cache"))
    engine = Engine(tiny)
    yield Catalogue(engine)
    engine.close()


def publish(server, name: str, base_model: str | None = None, **fields) -> None:
    """Add an adapter's repo: `fields` replace those of its config."""
    card = f"---\nbase_model: {base_model}\ntags: [lora]\n---\n" if base_model else "# A card\n"
    config = CONFIG | {"base_model_name_or_path": base_model} | fields
    files = {
        store.ADAPTER_CONFIG: json.dumps(config).encode(),
        store.ADAPTER_WEIGHTS: WEIGHTS,
        "README.md": card.encode(),
    }
    server.add_repo(name, files)


def test_an_adapter_for_the_base_is_described_and_not_downloaded(hub_server, catalogue):
    publish(hub_server, "bob/fits")
    preview = catalogue.preview(" bob/fits ")
    assert (preview.name, preview.title, preview.base) == ("bob/fits", "LoRA", None)
    assert preview.download_mb == pytest.approx(1.5, abs=0.01)
    text = adapter_loading.render(preview)
    assert "LoRA on tiny-bert" in text
    assert "To download: <b>1.5 MB for the adapter</b>." in text
    assert catalogue.entries == []
    assert not [request for request in hub_server.requests if store.ADAPTER_WEIGHTS in request]


def test_another_base_model_has_its_price_and_a_budget(hub_server, catalogue, base_of, monkeypatch):
    other = base_of("distilbert")
    hub_server.add_repo("bob/other-base", {path.name: path.read_bytes() for path in other.folder.iterdir()})
    publish(hub_server, "bob/other", "bob/other-base", target_modules=["q_lin"])
    monkeypatch.setenv("ARENA_MORE_BASES", "100")
    price = catalogue.preview("bob/other").base
    size = sum(path.stat().st_size for path in other.folder.iterdir()) / 1e6
    assert price.name == "bob/other-base"
    assert price.download_mb == pytest.approx(size, abs=0.01)
    assert price.memory_mb == pytest.approx(catalogue._engines.megabytes(other), rel=0.01)
    text = adapter_loading.render(catalogue.preview("bob/other"))
    assert f"and {size:,.0f} MB for its base model</b>" in text
    assert "MB</b> of memory" in text
    monkeypatch.setenv("ARENA_MORE_BASES", "0.01")
    with pytest.raises(BaseModelError, match=r"Adapter bob/other needs another base model.*ARENA_MORE_BASES"):
        catalogue.preview("bob/other")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"peft_type": "LOHA"}, "bob/bad .*LOHA"),
        ({"r": 100_000}, "bob/bad .*100000|100,000"),
        ({"base_model_name_or_path": "bert-base-uncased"}, "is for base model bert-base-uncased, not tiny-bert"),
    ],
)
def test_an_adapter_that_cannot_be_served_is_refused_with_the_reason(hub_server, catalogue, fields, reason):
    publish(hub_server, "bob/bad", **fields)
    with pytest.raises(AdapterError, match=reason):
        catalogue.preview("bob/bad")


def test_a_repo_without_an_adapter_or_permission_is_refused(hub_server, catalogue, monkeypatch):
    hub_server.add_repo("bob/text", {"README.md": b"# No adapter\n"})
    with pytest.raises(AdapterError, match=r"has no adapter_config\.json"):
        catalogue.preview("bob/text")
    with pytest.raises(HubError, match="is not a Hub id"):
        catalogue.preview("what/is/../this")
    with pytest.raises(HubError, match="no such repo"):
        catalogue.preview("bob/nothing")
    monkeypatch.setenv("ARENA_ALLOW_LOADING", "none")
    with pytest.raises(HubError, match="switched off"):
        catalogue.preview("bob/text")
