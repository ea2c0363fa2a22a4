import re

import pytest
from conftest import ROOT

from adapter_arena import settings
from adapter_arena.errors import SettingError
from adapter_arena.recipe import DEFAULT_BASE


def test_a_number_is_its_default_until_it_is_set(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert settings.get("ARENA_MAX_ROWS") == 100_000
    monkeypatch.setenv("ARENA_MAX_ROWS", "5_000")
    assert settings.get("ARENA_MAX_ROWS") == 5000
    assert settings.get("ARENA_MAX_PER_MINUTE") == 0
    monkeypatch.setenv("SPACE_ID", "alice/arena")
    assert settings.get("ARENA_MAX_PER_MINUTE") == 300


@pytest.mark.parametrize("value", ["many", "-1", "nan", "inf", "1e999"])
def test_an_invalid_number_is_named(monkeypatch, value):
    monkeypatch.setenv("ARENA_HOT_MB", value)
    with pytest.raises(SettingError, match="ARENA_HOT_MB"):
        settings.check()


def test_a_misspelt_setting_is_named_with_the_nearest(monkeypatch):
    monkeypatch.setenv("ARENA_HOTMB", "5")
    with pytest.raises(SettingError, match="did you mean 'ARENA_HOT_MB'"):
        settings.check()


def test_the_document_is_generated():
    """After a change: python -m adapter_arena.settings > docs/settings.md"""
    assert settings.document() == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_the_default_base_is_the_recipes():
    assert settings.Settings.model_fields["base_model"].default == DEFAULT_BASE


def test_every_setting_that_is_read_is_documented():
    found = set()
    for path in [*ROOT.glob("*.py"), *ROOT.glob("adapter_arena/**/*.py")]:
        found |= set(re.findall(r"ARENA_[A-Z_]+", path.read_text(encoding="utf-8")))
    assert found - {"ARENA_"} <= set(settings.NAMES)
