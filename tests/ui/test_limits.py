"""Request limits, without a server."""

import time
from types import SimpleNamespace

import pandas
import pytest

from adapter_arena.ui import event_queue, limits, uploads
from adapter_arena.ui.limits import RateLimiter


def test_each_client_has_its_own_limit_per_minute(monkeypatch):
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "3")
    now = [1000.0]
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: now[0]))
    limiter = RateLimiter()
    assert [limiter.seconds_until_allowed("10.0.0.1") for _ in range(4)] == [0, 0, 0, 60]
    assert limiter.seconds_until_allowed("10.0.0.2") == 0
    now[0] += 20
    assert limiter.seconds_until_allowed("10.0.0.1") == 40
    now[0] += 40.1
    assert limiter.seconds_until_allowed("10.0.0.1") == 0


def test_calls_from_within_the_app_are_not_limited(monkeypatch):
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "1")
    limiter = RateLimiter()
    assert [limiter.seconds_until_allowed(None) for _ in range(3)] == [0, 0, 0]


def test_the_number_of_remembered_clients_is_bounded(monkeypatch):
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "3")
    limiter = RateLimiter()
    for number in range(limits.MAX_CLIENTS + 50):
        limiter.seconds_until_allowed(str(number))
    assert len(limiter._times_of) == limits.MAX_CLIENTS


def test_the_rate_limit_ignores_changes_of_the_wall_clock(monkeypatch):
    monkeypatch.setenv("ARENA_MAX_PER_MINUTE", "1")
    limiter = RateLimiter()
    assert limiter.seconds_until_allowed("a") == 0
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=time.monotonic, time=lambda: 0.0))
    assert limiter.seconds_until_allowed("a") == 60


@pytest.mark.parametrize(("space", "peer", "forwarded", "address"), [
    ("", "10.16.2.3", "8.8.8.8", "10.16.2.3"),  # a peer that is not trusted can send any header
    ("me/arena", "10.16.2.3", "8.8.8.8", "8.8.8.8"),
    ("me/arena", "10.16.2.3", "1.1.1.1, 8.8.8.8, 10.0.0.7", "8.8.8.8"),  # the proxies append the last public one
    ("me/arena", "10.16.2.3", "nonsense, 10.0.0.7", "10.16.2.3"),
    ("me/arena", "10.16.2.3", None, "10.16.2.3"),
    ("me/arena", "10.16.2.3", "2a00:1450:4001:82a::200e", "2a00:1450:4001:82a::/64"),
])  # fmt: skip
def test_only_the_proxies_of_a_space_are_trusted_with_the_client_address(monkeypatch, space, peer, forwarded, address):
    monkeypatch.setenv("SPACE_ID", space)
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    request = SimpleNamespace(client=SimpleNamespace(host=peer), headers=headers)
    assert limits.client_address(request) == address


def test_an_agent_cannot_choose_the_address_that_the_mcp_server_forwards(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    headers = [(b"x-forwarded-for", b"8.8.8.8"), (b"accept", b"*/*")]
    scope = {"type": "http", "client": ("10.16.2.3", 80), "headers": headers}
    forwarded = limits._forwarding_client_address(scope)
    assert dict(forwarded["headers"]) == {b"x-forwarded-for": b"10.16.2.3", b"accept": b"*/*"}
    assert scope["headers"] == headers


def test_unfetched_responses_are_evicted_after_two_rounds():
    queue = SimpleNamespace(
        event_ids_to_events={"e1": SimpleNamespace(session_hash="running")},
        pending_event_ids_session={"running": {"e1"}, "complete": {"e2"}, "fetched": set()},
        pending_messages_per_session={"running": 1, "complete": 2, "fetched": 3},
    )
    events = event_queue.EventQueue(SimpleNamespace(_queue=queue))
    events.evict_unfetched()
    assert set(queue.pending_messages_per_session) == {"running", "complete", "fetched"}
    events.evict_unfetched()
    assert set(queue.pending_messages_per_session) == {"running", "fetched"}
    assert set(queue.pending_event_ids_session) == {"running", "fetched"}


def test_uploads_on_disk_are_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(uploads, "get_upload_folder", lambda: str(tmp_path))
    assert uploads.stored_mb() == 0
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file.csv").write_bytes(b"x" * 1_000_000)
    assert uploads.stored_mb() == 1


def test_the_least_recently_used_tables_are_evicted(monkeypatch):
    monkeypatch.setenv("ARENA_TABLES_MB", "1")
    cache = uploads.TableCache()
    table = pandas.DataFrame({"n": range(50_000)})  # 0.4 MB
    first = cache.put(table)
    second = cache.put(table)
    assert cache.get(first) is not None
    third = cache.put(table)
    assert [cache.get(key) is not None for key in (first, second, third)] == [True, False, True]
    cache.drop(first)
    assert cache.get(first) is None
    assert cache.get(None) is None
