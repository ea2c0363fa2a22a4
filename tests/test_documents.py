"""The generated parts of the documents are current."""

import importlib
import re

import pytest
from conftest import ROOT


@pytest.fixture
def refresh(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("refresh")


def test_generated_parts_are_current(refresh):
    for path in refresh.documents():
        text = path.read_text(encoding="utf-8")
        assert refresh.refreshed(text) == text, f"{path.name} is out of date: run python docs/refresh.py"


def test_every_part_is_in_a_document(refresh):
    text = "".join(path.read_text(encoding="utf-8") for path in refresh.documents())
    for name in refresh.PARTS:
        assert f"<!-- begin {name} -->" in text


def test_links_between_documents_lead_somewhere():
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"
