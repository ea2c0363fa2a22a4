"""What is on offer stays so while others load adapters, and when a folder goes away beneath it."""

import dataclasses
import hashlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import HANG_SECONDS

from adapter_arena import hub
from adapter_arena.adapters import store
from adapter_arena.errors import AdapterError, HubError
from adapter_arena.hub import Remote
from adapter_arena.serve import catalogue as module
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.ui import adapters_tab

TEXTS = ["a wonderful film", "a dull, endless bore"]


class FakeHub:
    """Stands for hub.read: which commits it gives, when, and which were asked for."""

    def __init__(self, folder):
        self.folder, self.asked, self.begun = folder, [], threading.Event()
        self.go_on, self.failure = threading.Event(), None
        self.go_on.set()

    def read(self, remote: Remote, base) -> store.Adapter:
        self.asked.append((remote.repo_id, remote.revision))
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
    one.go_on.set()  # whoever still waits ends


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "tiny-lora")


@pytest.fixture
def offered(tiny, folder):
    """A catalogue of one local adapter and, on the Hub, of bob/slow and bob/quick."""
    engine = Engine(tiny)
    engine.add_folder(folder)
    one = Catalogue(engine)
    for name in ("bob/slow", "bob/quick"):
        see(one, name, "first")
    yield one
    engine.close()


def see(catalogue: Catalogue, name: str, revision: str) -> None:
    """Have the listing say that the repo is at that commit."""
    catalogue._listed[name] = Remote(name, revision, None, "lora", None, None, None)


def test_nothing_that_needs_no_download_waits_for_one(offered, fake):
    fake.go_on.clear()
    with ThreadPoolExecutor() as pool:
        try:
            loading = pool.submit(offered.predict, TEXTS, "bob/slow")
            assert fake.begun.wait(HANG_SECONDS)
            answers = pool.submit(offered.compare, TEXTS[0]).result(HANG_SECONDS)
            assert [answer.name for answer in answers] == ["untrained", "tiny-lora"]
            assert len(pool.submit(offered.predict, TEXTS, "bob/quick").result(HANG_SECONDS)) == 2
            assert not loading.done()
        finally:
            fake.go_on.set()
        assert len(loading.result(HANG_SECONDS)) == 2


def test_two_who_ask_for_one_adapter_fetch_it_once(offered, fake):
    fake.go_on.clear()
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(offered.predict, TEXTS, "bob/slow") for _ in range(2)]
        assert fake.begun.wait(HANG_SECONDS)
        fake.go_on.set()
        assert all(len(asked.result(HANG_SECONDS)) == 2 for asked in both)
    assert fake.asked == [("bob/slow", "first")]


def test_while_a_new_commit_is_fetched_the_loaded_one_answers(offered, fake):
    offered.predict(TEXTS, "bob/slow")
    see(offered, "bob/slow", "second")
    fake.begun.clear()
    fake.go_on.clear()
    with ThreadPoolExecutor() as pool:
        try:
            fetching = pool.submit(offered.predict, TEXTS, "bob/slow")
            assert fake.begun.wait(HANG_SECONDS)
            assert len(pool.submit(offered.predict, TEXTS, "bob/slow").result(HANG_SECONDS)) == 2
            assert len(pool.submit(offered.compare, TEXTS[0]).result(HANG_SECONDS)) == 3
            assert offered.find("bob/slow").revision == "first"
        finally:
            fake.go_on.set()
        fetching.result(HANG_SECONDS)
    assert offered.find("bob/slow").revision == "second"


@pytest.mark.parametrize("failure", [AdapterError("it does not fit"), HubError("it cannot be had")])
def test_a_new_commit_that_cannot_be_had_is_left_alone_for_a_while(offered, fake, monkeypatch, failure):
    offered.predict(TEXTS, "bob/quick")
    see(offered, "bob/quick", "second")
    fake.failure = failure
    for _ in range(3):
        assert len(offered.predict(TEXTS, "bob/quick")) == 2
    assert fake.asked == [("bob/quick", "first"), ("bob/quick", "second")]
    assert offered.find("bob/quick").revision == "first"
    fake.failure = None
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    offered.predict(TEXTS, "bob/quick")
    assert offered.find("bob/quick").revision == "second"


def test_a_refused_adapter_is_not_fetched_for_each_who_asks_but_one_out_of_reach_is(offered, fake):
    for failure, times in ((HubError("it cannot be had"), 3), (AdapterError("it does not fit"), 1)):
        fake.failure = failure
        fake.asked.clear()
        for _ in range(3):
            with pytest.raises(type(failure), match=str(failure)):
                offered.predict(TEXTS, "bob/quick")
        assert len(fake.asked) == times


def test_a_folder_deleted_while_it_is_served_harms_no_listing(offered, folder):
    before = [entry.to_dict() for entry in offered.entries]
    assert before[0]["megabytes"] == (folder / store.ADAPTER_WEIGHTS).stat().st_size / 1e6
    shutil.rmtree(folder)
    assert [entry.to_dict() for entry in offered.entries] == before
    assert [answer.error for answer in offered.compare(TEXTS[0])] == [None, None]
    shown = adapters_tab.render_files(offered.find("tiny-lora"))
    assert "The files of tiny-lora cannot be read (No such file or directory). Restore its folder" in shown
    assert str(folder) not in shown


def test_an_adapter_that_cannot_be_loaded_again_fails_alone_in_a_comparison(offered, folder, fake):
    offered.predict(TEXTS, "bob/quick")
    shutil.rmtree(folder)
    offered.engine.offer(offered.find("tiny-lora").adapter)  # as when others took its memory
    untrained, lost, other = offered.compare(TEXTS[0])
    assert (untrained.error, other.error) == (None, None)
    assert lost.name == "tiny-lora"
    assert lost.error


def test_files_are_shown_with_their_hashes(offered, folder):
    shown = adapters_tab.render_files(offered.find("tiny-lora"))
    for path in folder.iterdir():
        assert path.name in shown
        assert hashlib.sha256(path.read_bytes()).hexdigest() in shown
