"""The answers that are computed at the start, and their cache."""

import dataclasses
import json

import pytest
from conftest import HANG_SECONDS
from plain_adapters import CONFIGS, plain_adapter

from adapter_arena.errors import BusyError
from adapter_arena.serve import first_answers
from adapter_arena.serve.catalogue import UNTRAINED, Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.first_answers import FirstAnswers, FirstScreen

TEXT = "a wonderful film with an awful ending"


@pytest.fixture(scope="module")
def engine(tiny):
    engine = Engine(tiny, merged_mb=0)
    yield engine
    engine.close()


@pytest.fixture
def catalogue(engine, tiny, tmp_path, monkeypatch):
    """A catalogue of one local adapter, with an empty cache."""
    monkeypatch.setenv("ARENA_CACHE", str(tmp_path / "cache"))
    engine.add_folder(plain_adapter(tiny, CONFIGS["lora"], tmp_path / "tiny-lora"))
    return Catalogue(engine)


def find(catalogue: Catalogue, text: str = TEXT) -> FirstAnswers:
    screen = FirstScreen(catalogue, text, ["tiny-lora"], "tiny-lora")
    screen.start()
    return screen.future.result(HANG_SECONDS)


def forbid_passes(engine, monkeypatch):
    monkeypatch.setattr(engine, "forward", lambda *arguments: pytest.fail("a forward pass"))


def test_the_second_start_reads_the_same_answers_without_a_forward_pass(catalogue, engine, monkeypatch):
    first = find(catalogue)
    assert [answer.name for answer in first.answers] == [UNTRAINED, "tiny-lora"]
    assert first.answers[1].prediction == engine.predict([TEXT], "tiny-lora")[0]
    assert "".join(word for word, _ in first.explanation.words) == TEXT
    forbid_passes(engine, monkeypatch)
    second = find(catalogue)
    assert second.answers == first.answers
    assert second.explanation.label == first.explanation.label
    assert [tuple(word) for word in second.explanation.words] == first.explanation.words


def test_a_duration_is_not_that_of_a_busy_moment(catalogue, monkeypatch):
    compare = catalogue.compare
    milliseconds = iter([500.0, 800.0, 42.0, 900.0])

    def timed(*arguments):
        answers = compare(*arguments)
        duration = next(milliseconds)
        return [dataclasses.replace(answer, milliseconds=duration) for answer in answers]

    monkeypatch.setattr(catalogue, "compare", timed)
    assert [answer.milliseconds for answer in find(catalogue).answers] == [42.0, 42.0]


@pytest.mark.parametrize("changed", ["text", "config", "weights", "format"])
def test_what_changes_an_answer_is_computed_again(catalogue, tmp_path, monkeypatch, changed):
    find(catalogue)
    computed = []
    compute = FirstScreen._compute
    monkeypatch.setattr(FirstScreen, "_compute", lambda self: computed.append(changed) or compute(self))
    if changed == "format":
        monkeypatch.setattr(first_answers, "_FORMAT", first_answers._FORMAT + 1)
    elif changed != "text":
        name = {"config": "adapter_config.json", "weights": "adapter_model.safetensors"}[changed]
        path = tmp_path / "tiny-lora" / name
        path.write_bytes(path.read_bytes() + b"\n")
    find(catalogue, "another text" if changed == "text" else TEXT)
    assert computed == [changed]


def test_a_damaged_cache_file_is_computed_again(catalogue, tmp_path):
    first = find(catalogue)
    [path] = (tmp_path / "cache" / "first-answers").glob("*.json")
    content = path.read_text()
    for damage in (content[:100], json.dumps(json.loads(content) | {"answers": [{}]})):
        path.write_text(damage)
        assert find(catalogue).answers[1].prediction == first.answers[1].prediction


def test_a_failure_reaches_the_page_and_is_not_cached(catalogue, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise BusyError("Too many texts are waiting.")

    monkeypatch.setattr(catalogue, "compare", refuse)
    with pytest.raises(BusyError, match="Too many texts"):
        find(catalogue)
    assert not (tmp_path / "cache" / "first-answers").exists()


def test_without_loaded_adapters_there_are_no_answers(catalogue):
    screen = FirstScreen(catalogue, TEXT, [], None)
    screen.start()
    assert screen.future.result(HANG_SECONDS) == FirstAnswers([])
