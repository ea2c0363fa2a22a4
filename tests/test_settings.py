import pytest
from conftest import ROOT

from adapter_arena import settings
from adapter_arena.errors import SettingError


def test_a_number_is_its_default_until_it_is_set(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert settings.number("ARENA_MAX_ROWS") == 100_000
    monkeypatch.setenv("ARENA_MAX_ROWS", "5_000")
    assert settings.number("ARENA_MAX_ROWS") == 5000
    assert settings.number("ARENA_MAX_PER_MINUTE") == 0
    monkeypatch.setenv("SPACE_ID", "alice/arena")
    assert settings.number("ARENA_MAX_PER_MINUTE") == 300


@pytest.mark.parametrize("value", ["many", "-1", "nan", "inf", "1e999"])
def test_what_is_no_number_is_named(monkeypatch, value):
    monkeypatch.setenv("ARENA_HOT_MB", value)
    with pytest.raises(SettingError, match="ARENA_HOT_MB"):
        settings.check()


def test_a_misspelt_setting_is_named_with_the_nearest(monkeypatch):
    monkeypatch.setenv("ARENA_HOTMB", "5")
    with pytest.raises(SettingError, match="did you mean 'ARENA_HOT_MB'"):
        settings.check()


def test_the_documents_have_the_table():
    assert settings.table() in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_no_setting_is_read_elsewhere_under_a_name_that_is_not_in_the_table():
    import re

    found = {
        name for path in [*ROOT.glob("*.py"), *ROOT.glob("adapter_arena/**/*.py")]
        for name in re.findall(r"ARENA_[A-Z_]+", path.read_text(encoding="utf-8"))
    }  # fmt: skip
    assert found - {"ARENA_"} <= {*settings.TEXTS, *settings.NUMBERS}
