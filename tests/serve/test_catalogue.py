"""Adapters stay available while others are fetched, and after their folder was deleted."""

import dataclasses
import hashlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import HANG_SECONDS
from safetensors.torch import load_file, save_file

import app
from adapter_arena import hub
from adapter_arena.adapters import store
from adapter_arena.errors import AdapterError, HubError
from adapter_arena.hub import RemoteAdapter
from adapter_arena.serve import catalogue as module
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.ui import adapter_files, adapter_status

TEXTS = ["a wonderful film", "a dull, endless bore"]


class FakeHub:
    """Replaces hub.read: decides when a commit arrives, and notes which ones were requested."""

    def __init__(self, folder):
        self.folder = folder
        self.requested = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.failure = None
        self.go_on.set()

    def read(self, remote: RemoteAdapter, base) -> store.Adapter:
        self.requested.append((remote.repo_id, remote.revision))
        if remote.repo_id == "bob/slow":
            self.begun.set()
            assert self.go_on.wait(HANG_SECONDS)
        if self.failure:
            raise self.failure
        return dataclasses.replace(store.read(self.folder, base), name=remote.repo_id, revision=remote.revision)


@pytest.fixture
def fake(trained, monkeypatch, tmp_path):
    monkeypatch.setenv("ARENA_CACHE", str(tmp_path / "cache"))
    one = FakeHub(trained)
    monkeypatch.setattr(hub, "read", one.read)
    yield one
    one.go_on.set()  # ends what still waits


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "tiny-lora")


@pytest.fixture
def catalogue(tiny, folder):
    """A catalogue of one local adapter and of bob/slow and bob/quick on the Hub."""
    engine = Engine(tiny)
    engine.add_folder(folder)
    one = Catalogue(engine)
    for name in ("bob/slow", "bob/quick"):
        see(one, name, "first")
    yield one
    engine.close()


def see(catalogue: Catalogue, name: str, revision: str) -> None:
    """List the repo at that commit."""
    catalogue.listing.adapters[name] = RemoteAdapter(name, revision, None, "lora", None, None, None)


def test_adapters_that_need_no_download_do_not_wait_for_one(catalogue, fake):
    fake.go_on.clear()
    with ThreadPoolExecutor() as pool:
        try:
            loading = pool.submit(catalogue.predict, TEXTS, "bob/slow")
            assert fake.begun.wait(HANG_SECONDS)
            answers = pool.submit(catalogue.compare, TEXTS[0]).result(HANG_SECONDS)
            assert [answer.name for answer in answers] == ["untrained", "tiny-lora"]
            assert len(pool.submit(catalogue.predict, TEXTS, "bob/quick").result(HANG_SECONDS)) == 2
            assert not loading.done()
        finally:
            fake.go_on.set()
        assert len(loading.result(HANG_SECONDS)) == 2


def test_two_requests_for_one_adapter_fetch_it_once(catalogue, fake):
    fake.go_on.clear()
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(catalogue.predict, TEXTS, "bob/slow") for _ in range(2)]
        assert fake.begun.wait(HANG_SECONDS)
        fake.go_on.set()
        assert all(len(request.result(HANG_SECONDS)) == 2 for request in both)
    assert fake.requested == [("bob/slow", "first")]


def test_while_a_new_commit_is_fetched_the_loaded_one_answers(catalogue, fake):
    catalogue.predict(TEXTS, "bob/slow")
    see(catalogue, "bob/slow", "second")
    fake.begun.clear()
    fake.go_on.clear()
    with ThreadPoolExecutor() as pool:
        try:
            fetching = pool.submit(catalogue.predict, TEXTS, "bob/slow")
            assert fake.begun.wait(HANG_SECONDS)
            assert len(pool.submit(catalogue.predict, TEXTS, "bob/slow").result(HANG_SECONDS)) == 2
            assert len(pool.submit(catalogue.compare, TEXTS[0]).result(HANG_SECONDS)) == 3
            assert catalogue.find("bob/slow").revision == "first"
        finally:
            fake.go_on.set()
        fetching.result(HANG_SECONDS)
    assert catalogue.find("bob/slow").revision == "second"


@pytest.mark.parametrize("failure", [AdapterError("it does not fit"), HubError("it cannot be fetched")])
def test_a_new_commit_that_cannot_be_loaded_is_not_fetched_again_for_a_while(catalogue, fake, monkeypatch, failure):
    catalogue.predict(TEXTS, "bob/quick")
    see(catalogue, "bob/quick", "second")
    fake.failure = failure
    for _ in range(3):
        assert len(catalogue.predict(TEXTS, "bob/quick")) == 2
    assert fake.requested == [("bob/quick", "first"), ("bob/quick", "second")]
    assert catalogue.find("bob/quick").revision == "first"
    fake.failure = None
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    catalogue.predict(TEXTS, "bob/quick")
    assert catalogue.find("bob/quick").revision == "second"


def test_an_invalid_adapter_is_fetched_once_and_an_unreachable_one_for_each_request(catalogue, fake):
    for failure, times in ((HubError("it cannot be fetched"), 3), (AdapterError("it does not fit"), 1)):
        fake.failure = failure
        fake.requested.clear()
        for _ in range(3):
            with pytest.raises(type(failure), match=str(failure)):
                catalogue.predict(TEXTS, "bob/quick")
        assert len(fake.requested) == times


def test_an_adapter_whose_folder_was_deleted_is_still_listed_and_served(catalogue, folder):
    before = [entry.to_dict() for entry in catalogue.entries]
    assert before[0]["megabytes"] == (folder / store.ADAPTER_WEIGHTS).stat().st_size / 1e6
    shutil.rmtree(folder)
    assert [entry.to_dict() for entry in catalogue.entries] == before
    assert [answer.error for answer in catalogue.compare(TEXTS[0])] == [None, None]
    shown = adapter_files.render(catalogue.find("tiny-lora"))
    assert "The files of tiny-lora cannot be read (No such file or directory). Restore its folder" in shown
    assert str(folder) not in shown


def test_an_adapter_that_cannot_be_loaded_again_fails_alone_in_a_comparison(catalogue, folder, fake):
    catalogue.predict(TEXTS, "bob/quick")
    shutil.rmtree(folder)
    catalogue.engine.register(catalogue.find("tiny-lora").adapter)  # as if it had been evicted
    untrained, lost, other = catalogue.compare(TEXTS[0])
    assert (untrained.error, other.error) == (None, None)
    assert lost.name == "tiny-lora"
    assert lost.error


def test_files_are_shown_with_their_hashes(catalogue, folder):
    shown = adapter_files.render(catalogue.find("tiny-lora"))
    for path in folder.iterdir():
        assert path.name in shown
        assert hashlib.sha256(path.read_bytes()).hexdigest() in shown


def test_what_is_left_out_and_what_is_noted_is_known_at_the_start(tiny, folder, tmp_path, capsys):
    local = shutil.copytree(folder, tmp_path / "local")
    (local / "results.json").unlink()
    config = json.loads((local / store.ADAPTER_CONFIG).read_text())
    (local / store.ADAPTER_CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": "/home/bob/bert"}))
    headless = shutil.copytree(local, tmp_path / "headless")
    weights = load_file(headless / store.ADAPTER_WEIGHTS)
    encoder = {name: tensor for name, tensor in weights.items() if "classifier" not in name}
    save_file(encoder, headless / store.ADAPTER_WEIGHTS)
    found = app.read_adapters([local, headless], tiny)
    log = capsys.readouterr().err
    assert "note: Adapter local: base named /home/bob/bert; served on tiny-bert because" in log
    assert "left out: Adapter headless has no trained classification head" in log
    engine = Engine(tiny)
    engine.register(found.adapters[0])
    catalogue = Catalogue(engine, left_out=found.left_out)
    assert [entry.name for entry in catalogue.entries] == ["local"]
    assert "served on tiny-bert" in catalogue.find("local").to_dict()["notes"][0]
    assert "Adapter headless has no trained classification head" in adapter_status.render(catalogue)
    assert "served on tiny-bert" in adapter_files.render(catalogue.find("local"))
    engine.close()


@pytest.mark.parametrize("base_model", ["/home/bob/bert", "TINY-BERT", None])
def test_a_card_may_name_the_base_by_somebodys_path(catalogue, fake, base_model):
    name = "bob/quick"
    catalogue.listing.adapters[name] = dataclasses.replace(catalogue.listing.adapters[name], base_model=base_model)
    assert len(catalogue.predict(TEXTS, name)) == 2
