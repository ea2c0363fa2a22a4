import json
import multiprocessing
import os
import random
import threading
from collections import Counter

import pytest
from conftest import HANG_SECONDS

from adapter_arena.errors import ArenaError, BusyError, RequestError
from adapter_arena.serve.votes import MAX_CHARACTERS, Votes
from adapter_arena.stats import wilson


@pytest.fixture
def votes(tmp_path) -> Votes:
    return Votes(tmp_path / "votes")


def lines(votes):
    return [json.loads(line) for line in votes.file.lines().splitlines()]


def test_a_vote_is_one_line_with_the_text_only_if_it_is_given(votes):
    votes.record("lora", "ia3")
    votes.record("lora", "full", tie=True, text="A film.\n\u2028\ud83d", revisions={"lora": "abc", "other": "x"})
    first, second = lines(votes)
    assert first.keys() == {"time", "winner", "loser", "tie"}
    assert first["time"].endswith("+00:00")
    assert (first["winner"], first["loser"], first["tie"]) == ("lora", "ia3", False)
    assert second["text"] == "A film.\n\u2028\ud83d"
    assert second["revisions"] == {"lora": "abc", "full": None}


def test_a_long_text_is_truncated(votes):
    votes.record("a", "b", text="x" * 1_000_000)
    assert len(lines(votes)[0]["text"]) == MAX_CHARACTERS


def test_tally_counts_ties_as_half_and_has_an_interval(votes):
    for winner, loser, tie in [("a", "b", False)] * 3 + [("b", "a", False), ("a", "b", True), ("b", "c", True)]:
        votes.record(winner, loser, tie)
    a, c, b = votes.tally()
    assert (a.adapter, a.wins, a.losses, a.ties) == ("a", 3, 1, 1)
    assert a.share == 0.7
    assert a.share_ci95 == wilson(3.5, 5)
    assert (b.adapter, b.wins, b.losses, b.ties) == ("b", 1, 3, 2)
    assert (c.adapter, c.share) == ("c", 0.5)
    assert a.strength > c.strength > b.strength


def test_strength_is_the_odds_on_the_elo_scale(votes):
    for winner, loser, times in (("a", "b", 1000), ("b", "a", 100), ("b", "c", 1000), ("c", "b", 100)):
        for _ in range(times):
            votes.record(winner, loser)
    strength = {row.adapter: row.strength for row in votes.tally()}
    assert strength["a"] - strength["b"] == pytest.approx(400, abs=15)
    assert strength["a"] - strength["c"] == pytest.approx(800, abs=40)


def test_an_adapter_that_never_lost_has_a_finite_strength(votes):
    for _ in range(50):
        votes.record("a", "b")
    a, b = votes.tally()
    assert 0 < a.strength < 2000
    assert a.strength == pytest.approx(-b.strength, abs=1)


def test_without_votes_there_is_no_tally_and_no_file(votes):
    assert votes.tally() == []
    assert votes.file.lines() == b""


def test_the_least_compared_pair_comes_next_in_random_order(votes):
    names = ["a", "b", "c"]
    rng = random.Random(0)
    for first, second in (("a", "b"), ("c", "b")):
        votes.record(first, second, tie=True)
    assert {votes.pick(names, rng) for _ in range(50)} == {("a", "c"), ("c", "a")}
    votes.record("c", "a")
    seen = Counter(frozenset(votes.pick(names, rng)) for _ in range(300))
    assert len(seen) == 3
    assert min(seen.values()) > 60


def test_a_duel_needs_two(votes):
    with pytest.raises(RequestError, match="needs two adapters"):
        votes.pick(["a", "a"], random.Random(0))
    with pytest.raises(RequestError, match="two different adapters"):
        votes.record("a", "a")
    assert not votes.file.path.exists()


def test_threads_lose_no_vote(votes):
    def many(number):
        for i in range(100):
            votes.record(f"a{number}", "b", text="word " * (i * 20))

    threads = [threading.Thread(target=many, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(vote["winner"] for vote in lines(votes)) == {f"a{n}": 100 for n in range(8)}


def _record_many(folder, number):
    for i in range(100):
        Votes(folder).record(f"a{number}", "b", text="word " * (i * 20))


def test_processes_lose_no_vote(votes):
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_record_many, args=(votes.file.path.parent, n)) for n in range(4)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(HANG_SECONDS)
    finally:
        for process in processes:
            process.kill()
    assert [process.exitcode for process in processes] == [0] * 4
    assert Counter(vote["winner"] for vote in lines(votes)) == {f"a{n}": 100 for n in range(4)}


@pytest.mark.parametrize(
    "incomplete",
    [b'{"time": "2026", "winner": "a", "lo', b'{"a"}', b"\xff\xfe", b"[1]", b"7", b'{"winner": 1, "loser": "b"}'],
)
def test_an_incomplete_last_line_loses_only_its_own_vote(votes, incomplete):
    votes.record("a", "b")
    with votes.file.path.open("ab") as file:
        file.write(incomplete)
    assert votes.tally()[0].wins == 1
    assert votes.file.lines().count(b"\n") == 1
    votes.record("a", "b")
    assert votes.tally()[0].wins == 2
    assert votes.file.lines().endswith(b"}\n")


def test_each_vote_is_counted_once(votes):
    votes.record("a", "b")
    assert votes.tally()[0].wins == 1
    Votes(votes.file.path.parent).record("a", "b")  # another process
    assert votes.tally()[0].wins == votes.tally()[0].wins == 2
    votes.file.path.write_bytes(votes.file.path.read_bytes().splitlines(keepends=True)[0])  # the operator removes one
    assert votes.tally()[0].wins == 1
    votes.file.path.unlink()
    assert votes.tally() == []
    votes.record("b", "a")
    assert [(row.adapter, row.wins) for row in votes.tally()] == [("b", 1), ("a", 0)]


def test_a_vote_is_counted_when_its_line_is_complete(votes):
    votes.record("a", "b")
    line = votes.file.path.read_bytes()
    with votes.file.path.open("ab") as file:
        file.write(line[:30])
        file.flush()
        assert votes.tally()[0].wins == 1
        file.write(line[30:])
    assert votes.tally()[0].wins == 2


def test_the_size_of_the_file_is_limited(votes, monkeypatch):
    votes.record("a", "b", text="x" * 5000)
    monkeypatch.setenv("ARENA_MAX_VOTES_MB", "0.0101")
    votes.record("a", "b", text="x" * 4500)
    before = votes.file.path.read_bytes()
    with pytest.raises(BusyError, match=r"not counted: .* limit of 0\.0101 MB \(ARENA_MAX_VOTES_MB\)"):
        votes.record("b", "a", text="x" * 1000)
    assert votes.file.path.read_bytes() == before
    assert votes.tally()[0].wins == 2


def test_a_full_disk_is_reported_in_one_line(tmp_path):
    votes = Votes(tmp_path)
    votes.file.path.symlink_to("/dev/full")
    with pytest.raises(ArenaError, match=r"The vote was not counted: .*No space left on device") as caught:
        votes.record("a", "b")
    assert "\n" not in str(caught.value)


def test_an_incomplete_write_loses_only_its_own_vote(votes, monkeypatch):
    votes.record("a", "b")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, line: write(handle, line[:20]))
        with pytest.raises(ArenaError, match="No space left"):
            votes.record("b", "a")
    votes.record("a", "b")
    assert [(row.adapter, row.wins) for row in votes.tally()] == [("a", 2), ("b", 0)]


def test_votes_cannot_be_recorded_without_a_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        votes = Votes(folder)
        with pytest.raises(ArenaError, match="The vote was not counted"):
            votes.record("a", "b")
        assert votes.tally() == []
        assert set(votes.pick(["a", "b"], random.Random(0))) == {"a", "b"}
