"""Push, discovery and download with the unmodified client, against an HTTP server that injects faults."""

import dataclasses
import json
import os
import re
import shutil

import pytest
from conftest import wait_until
from hub_server import Account, Fault
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import train_space
from adapter_arena import files, hub, network, results
from adapter_arena.adapters import plots, store
from adapter_arena.errors import AdapterError, BaseModelError, HubError, RequestError
from adapter_arena.serve import votes
from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.serve.engine import Engine
from adapter_arena.train import run

TEXTS = ["a wonderful film", "a dull, endless bore"]
COMMIT = r"POST /api/models/.*/commit/.*"
ALWAYS = None
pytestmark = pytest.mark.usefixtures("no_pictures")  # drawing them would take most of a push's time


@pytest.fixture
def adapter(trained, tmp_path):
    """A copy of a trained adapter folder, as adapters/tiny-lora."""
    return shutil.copytree(trained, tmp_path / "adapters" / "tiny-lora")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, as on another machine."""
    monkeypatch.setenv("ARENA_CACHE", str(tmp_path / "cache"))
    return files.cache_folder()


@pytest.fixture
def engine(tiny):
    return Engine(tiny)


def publish(adapter, *flags) -> int:
    return train_space.main(["--push-only", adapter.name, "--output-dir", str(adapter.parent), *flags])


def on_hub(server, adapter, repo_id="bob/tiny-lora", **changes) -> str:
    """Add the adapter folder to the server as a repo, with some files changed (None: missing)."""
    contents = {path.name: path.read_bytes() for path in adapter.iterdir()} | changes
    for name, content in changes.items():
        if content is None:
            del contents[name]
    return server.add_repo(repo_id, contents)


# ---------------------------------------------------------------- the round trip


def test_trained_pushed_discovered_elsewhere_and_served_identically(hub_server, tiny, work, cache, capsys):
    flags = ["--method=lora", "--dataset=sample", "--n-train=64", "--n-test=40", "--n-validation=20", "--epochs=1"]
    flags += ["--name", "tiny"]
    assert train_space.main([*flags, "--base-model", tiny.id, "--push"]) == 0
    assert "published: " in capsys.readouterr().out
    here = Engine(tiny)
    here.add_folder(work / "adapters" / "tiny")
    catalogue = Catalogue(Engine(tiny), namespace="alice")
    assert catalogue.refresh().reached
    entry = catalogue.find("alice/tiny")
    measured = results.read(work / "adapters" / "tiny").evaluation
    assert (entry.source, entry.method, entry.accuracy) == ("hub", "lora", pytest.approx(measured.accuracy))
    there = catalogue.predict(TEXTS, "alice/tiny")
    assert [p.scores for p in there] == [p.scores for p in here.predict(TEXTS, "tiny")]
    assert entry.revision == hub_server.repos["model", "alice/tiny"].head.sha


def test_pushed_card_contains_every_metric_and_is_valid(hub_server, adapter):
    assert publish(adapter) == 0
    repo = hub_server.repos["model", "alice/tiny-lora"]
    card = ModelCard(repo.files["README.md"].decode())
    card.validate()
    scores = {result.metric_type: result.metric_value for result in card.data.eval_results}
    found = results.read(adapter)
    for name in ("accuracy", "f1", "precision", "recall"):
        assert scores[name] == pytest.approx(getattr(found.evaluation, name), abs=1e-4)
    assert (card.data.base_model, card.data.base_model_relation) == (found.base_model.id, "adapter")
    assert {"lora", "adapter-arena"} <= set(card.data.tags)


def test_push_is_one_commit_tagged_with_the_run(hub_server, adapter):
    assert publish(adapter) == 0
    repo = hub_server.repos["model", "alice/tiny-lora"]
    made = [commit for commit in repo.commits if "adapter_config.json" in commit.files]
    assert len(made) == 1
    assert set(made[0].files) >= {path.name for path in adapter.iterdir()}
    assert re.fullmatch(r"run-\d{8}T\d{6}Z", next(iter(repo.tags)))
    assert not repo.private


def test_private_and_namespace_flags(hub_server, adapter):
    hub_server.accounts["hf_write"] = Account("alice", "write", ("team",))
    assert publish(adapter, "--private", "--namespace", "team") == 0
    assert hub_server.repos["model", "team/tiny-lora"].private


def test_pushing_again_changes_only_what_changed(hub_server, adapter):
    assert publish(adapter) == 0
    repo = hub_server.repos["model", "alice/tiny-lora"]
    before = len(repo.commits)
    assert publish(adapter) == 0
    assert len(repo.commits) == before
    weights = load_file(adapter / store.ADAPTER_WEIGHTS)
    save_file({name: tensor + 1 for name, tensor in weights.items()}, adapter / store.ADAPTER_WEIGHTS)
    assert publish(adapter) == 0
    assert len(repo.commits) == before + 1
    assert repo.files[store.ADAPTER_WEIGHTS] == (adapter / store.ADAPTER_WEIGHTS).read_bytes()


def test_the_published_recipe_can_be_repeated_by_repo_id(hub_server, adapter, capsys):
    assert publish(adapter) == 0
    assert train_space.main(["--recipe", "alice/tiny-lora", "--dry-run"]) == 1  # its base model is a local folder
    assert "tiny-bert" in capsys.readouterr().err


# ---------------------------------------------------------------- faults of a push


def test_rights_are_checked_before_anything_is_trained(hub_server, work, monkeypatch, capsys):
    monkeypatch.setattr(run, "train", None)  # a training would take minutes

    def refused(*flags) -> str:
        assert train_space.main(["--dataset", "sample", "--push", *flags]) == 1
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        return error

    hub_server.accounts["hf_read"] = Account("alice", "read")
    monkeypatch.delenv("HF_TOKEN")
    assert "No Hub token" in refused()
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrong")
    assert "not accepted" in refused()
    monkeypatch.setenv("HF_TOKEN", "hf_read")
    assert "may only read" in refused()
    hub_server.accounts["hf_read"] = Account("alice", "fineGrained", scopes={("user", "alice"): ("repo.content.read",)})
    assert "may only read" in refused()
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    assert "may not write to bob" in refused("--namespace", "bob")


def error_of_failed_push(adapter, capsys) -> str:
    """Return the error message, after checking that the adapter is unchanged and the command for later is printed."""
    captured = capsys.readouterr()
    error, later = captured.err.strip().splitlines()
    assert error.startswith("error: ")
    assert "--push-only tiny-lora" in later
    assert "hf_write" not in captured.out + captured.err
    assert results.read(adapter).hub_id is None
    return error


@pytest.mark.parametrize(
    ("route", "fault", "reason"),
    [
        (r"GET /api/whoami", Fault(status=503, times=ALWAYS), "503"),
        (r"POST /api/repos/create", Fault(status=500, times=ALWAYS), "500"),
        (r"POST /api/repos/create", Fault(status=429, headers={"Retry-After": "1"}, times=ALWAYS), "slow down"),
        (r"POST /api/repos/create", Fault(status=403, times=ALWAYS), "no right"),
        (COMMIT, Fault(status=500, times=ALWAYS), "500"),
    ],
)
def test_a_failed_push_leaves_the_adapter_unchanged(hub_server, adapter, capsys, route, fault, reason):
    hub_server.fail(route, fault)
    assert publish(adapter) == 1
    assert reason in error_of_failed_push(adapter, capsys)
    repo = hub_server.repos.get(("model", "alice/tiny-lora"))
    assert repo is None or store.ADAPTER_CONFIG not in repo.files
    hub_server.clear()
    assert publish(adapter) == 0


@pytest.mark.parametrize(
    ("route", "status"),
    [(r"GET /api/whoami", 500), (r"POST /api/repos/create", 503), (COMMIT, 429), (COMMIT, 500), (COMMIT, 503)],
)
def test_a_temporary_fault_is_retried(hub_server, adapter, route, status):
    hub_server.fail(route, Fault(status=status, headers={"Retry-After": "0"}))
    assert publish(adapter) == 0


def test_an_interrupted_upload_is_retried(hub_server, adapter):
    hub_server.fail(r"PUT .*", Fault(cut=1000))
    assert publish(adapter) == 0
    weights = hub_server.repos["model", "alice/tiny-lora"].files[store.ADAPTER_WEIGHTS]
    assert weights == (adapter / store.ADAPTER_WEIGHTS).read_bytes()


def test_a_commit_whose_response_was_lost_is_not_made_twice(hub_server, adapter):
    hub_server.fail(COMMIT, Fault(lose_reply=True))
    assert publish(adapter) == 0
    repo = hub_server.repos["model", "alice/tiny-lora"]
    assert len([commit for commit in repo.commits if store.ADAPTER_CONFIG in commit.files]) == 1
    assert next(iter(repo.tags.values())) == repo.head.sha


def test_hub_unreachable_between_create_and_upload(hub_server, adapter, tiny, capsys, monkeypatch):
    monkeypatch.setattr(hub.client, "PAUSES", ())
    hub_server.fail(r"GET /api/models/alice/tiny-lora", Fault(lose_reply=True, times=ALWAYS))
    assert publish(adapter) == 1
    assert "cannot be reached" in error_of_failed_push(adapter, capsys)
    hub_server.clear()
    assert hub.discover("alice", tiny) == []  # the new repo is empty and not listed
    assert publish(adapter) == 0


def test_a_push_without_network_fails_immediately(adapter, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    network.forget_probe()
    assert publish(adapter) == 1
    assert "cannot be reached" in error_of_failed_push(adapter, capsys)


def test_a_token_in_a_file_is_never_uploaded(hub_server, adapter, capsys):
    path = adapter / store.ADAPTER_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "hf_write"}))
    assert publish(adapter) == 1
    assert "contains your Hub token" in capsys.readouterr().err
    assert ("model", "alice/tiny-lora") not in hub_server.repos


# ---------------------------------------------------------------- discover and load


def test_listing_of_2000_repos_is_limited(hub_server, adapter, tiny):
    card = (adapter / "README.md").read_bytes()
    for number in range(2000):
        hub_server.add_repo(f"bob/a{number}", {"README.md": card})
    assert len(hub.discover("bob", tiny)) == hub.MAX_LISTED


@pytest.mark.parametrize("tag", hub.adapters.TAGS)
def test_full_fine_tunes_are_found_by_the_present_and_the_old_tag(hub_server, tiny, tag):
    card = f"---\nbase_model: {tiny.label}\nbase_model_relation: finetune\ntags: [TAG, full]\n---\n"
    hub_server.add_repo("bob/ours", {"README.md": card.replace("TAG", tag).encode()})
    hub_server.add_repo("bob/something-else", {"README.md": card.replace("TAG", "other").encode()})
    [found] = hub.discover("bob", tiny)
    assert (found.repo_id, found.method) == ("bob/ours", "full")


def test_listing_survives_a_restart_without_the_hub(hub_server, adapter, engine, cache):
    sha = on_hub(hub_server, adapter)
    Catalogue(engine, namespace="bob").refresh()
    hub_server.stop()
    later = Catalogue(engine, namespace="bob")
    assert [entry.name for entry in later.entries] == ["bob/tiny-lora"]
    assert later.refresh().reached is False
    assert [entry.name for entry in later.entries] == ["bob/tiny-lora"]
    with pytest.raises(HubError, match="cannot be reached"):
        later.predict(TEXTS, "bob/tiny-lora")
    hub_server.start()
    assert later.refresh().reached
    assert later.predict(TEXTS, "bob/tiny-lora")
    hub_server.stop()  # a downloaded adapter needs no Hub, also in a new process
    assert hub.download("bob/tiny-lora", sha).is_dir()


def test_a_repo_deleted_or_made_private_is_still_served(hub_server, adapter, engine, cache):
    on_hub(hub_server, adapter)
    catalogue = Catalogue(engine)
    catalogue.load("bob/tiny-lora")
    hub_server.repos["model", "bob/tiny-lora"].private = True
    assert len(catalogue.predict(TEXTS, "bob/tiny-lora")) == 2
    hub_server.delete_repo("bob/tiny-lora")
    catalogue.refresh()
    assert len(catalogue.predict(TEXTS, "bob/tiny-lora")) == 2


def test_a_named_repo_is_pinned_until_the_next_listing(hub_server, adapter, engine, cache):
    first = on_hub(hub_server, adapter)
    catalogue = Catalogue(engine, repos=["bob/tiny-lora"])
    catalogue.refresh()
    before = catalogue.predict(TEXTS, "bob/tiny-lora")
    weights = load_file(adapter / store.ADAPTER_WEIGHTS)
    save_file({name: -tensor for name, tensor in weights.items()}, adapter / store.ADAPTER_WEIGHTS)
    second = on_hub(hub_server, adapter)
    assert catalogue.predict(TEXTS, "bob/tiny-lora")[0].scores == before[0].scores
    assert catalogue.find("bob/tiny-lora").revision == first
    catalogue.refresh()
    assert catalogue.predict(TEXTS, "bob/tiny-lora")[0].scores != before[0].scores
    assert catalogue.find("bob/tiny-lora").revision == second
    assert [path.name for path in (cache / "hub" / "bob--tiny-lora").iterdir()] == [second]


def test_an_adapter_without_results_is_served(hub_server, adapter, engine, cache):
    card = b"---\nbase_model: tiny-bert\nlibrary_name: peft\nlabels: [bad, good]\n---\n# mine\n"
    on_hub(hub_server, adapter, **{"results.json": None, "README.md": card})
    entry = Catalogue(engine).load("bob/tiny-lora")
    assert (entry.accuracy, entry.adapter.labels) == (None, ["bad", "good"])


@pytest.mark.parametrize(
    ("allowed", "message"),
    [("none", "switched off"), ("alice, carol/other", "only those of alice, carol/other")],
)
def test_an_adapter_that_visitors_may_not_load_is_refused(
    hub_server, adapter, engine, cache, monkeypatch, allowed, message
):
    on_hub(hub_server, adapter)
    monkeypatch.setenv("ARENA_ALLOW_LOADING", allowed)
    with pytest.raises(HubError, match=message):
        Catalogue(engine).load("bob/tiny-lora")
    for allowed in ("all", "bob", "bob/tiny-lora, alice"):
        monkeypatch.setenv("ARENA_ALLOW_LOADING", allowed)
        assert Catalogue(engine).load("bob/tiny-lora@main").name == "bob/tiny-lora"


def test_adapters_that_visitors_load_are_limited(hub_server, adapter, engine, cache, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_FETCHED", "2")
    for owner in ("bob", "carol", "dave", "alice"):
        on_hub(hub_server, adapter, f"{owner}/tiny-lora")
    catalogue = Catalogue(engine, repos=["alice/tiny-lora"])
    catalogue.refresh()
    for owner in ("alice", "bob", "carol", "bob", "dave"):
        catalogue.load(f"{owner}/tiny-lora")
    assert {entry.name for entry in catalogue.entries} == {f"{owner}/tiny-lora" for owner in ("alice", "carol", "dave")}
    assert len(catalogue.predict(TEXTS, "alice/tiny-lora")) == 2
    assert {path.name for path in (cache / "hub").iterdir()} == {f"{o}--tiny-lora" for o in ("alice", "carol", "dave")}
    with pytest.raises(RequestError, match="Unknown adapter 'bob/tiny-lora'"):
        catalogue.predict(TEXTS, "bob/tiny-lora")
    catalogue.load("bob/tiny-lora")  # downloads it again
    assert len(catalogue.predict(TEXTS, "bob/tiny-lora")) == 2


def test_a_visitor_cannot_change_the_commit_of_a_listed_adapter(hub_server, adapter, engine, cache):
    first = on_hub(hub_server, adapter)
    second = on_hub(hub_server, adapter, **{"README.md": b"# another\n"})
    catalogue = Catalogue(engine, repos=[f"bob/tiny-lora@{first}"])
    catalogue.refresh()
    assert catalogue.load("bob/tiny-lora").revision == first
    with pytest.raises(HubError, match=f"bob/tiny-lora is available only at commit {first[:12]}"):
        catalogue.load(f"bob/tiny-lora@{second}")
    assert catalogue.find("bob/tiny-lora").adapter.revision == first
    assert catalogue.load(f"bob/tiny-lora@{first}").revision == first


def test_an_adapter_loaded_by_a_visitor_and_then_listed_is_not_evicted(hub_server, adapter, engine, cache, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_FETCHED", "1")
    for owner in ("bob", "carol", "dave"):
        on_hub(hub_server, adapter, f"{owner}/tiny-lora")
    catalogue = Catalogue(engine, repos=["bob/tiny-lora"])
    for owner in ("bob", "carol"):
        catalogue.load(f"{owner}/tiny-lora")
        catalogue.refresh()
    catalogue.load("dave/tiny-lora")
    assert {entry.name for entry in catalogue.entries} == {"bob/tiny-lora", "dave/tiny-lora"}


def test_downloads_of_earlier_processes_are_evicted_at_start(hub_server, adapter, engine, cache, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_FETCHED", "1")
    for age, owner in enumerate(("carol", "bob", "dave", "alice")):
        on_hub(hub_server, adapter, f"{owner}/tiny-lora")
        Catalogue(engine).load(f"{owner}/tiny-lora")
        os.utime(cache / "hub" / f"{owner}--tiny-lora", (1e9 + age, 1e9 + age))
    later = Catalogue(engine, repos=["carol/tiny-lora"])
    later.refresh()
    later.start()
    assert {path.name for path in (cache / "hub").iterdir()} == {"alice--tiny-lora", "carol--tiny-lora"}


@pytest.mark.parametrize("fault", [Fault(cut=500), Fault(flip=True)])
def test_a_truncated_or_damaged_download_is_retried(hub_server, adapter, engine, cache, fault):
    on_hub(hub_server, adapter)
    hub_server.fail(r"GET /bob/tiny-lora/resolve/.*safetensors", fault)
    catalogue = Catalogue(engine)
    catalogue.load("bob/tiny-lora")
    assert len(catalogue.predict(TEXTS, "bob/tiny-lora")) == 2


def test_a_permanently_damaged_download_is_refused(hub_server, adapter, engine, cache):
    sha = on_hub(hub_server, adapter)
    hub_server.fail(r"GET /bob/tiny-lora/resolve/.*safetensors", Fault(flip=True, times=ALWAYS))
    with pytest.raises(AdapterError, match="does not match the Hub's hash"):
        Catalogue(engine).load("bob/tiny-lora")
    assert not (cache / "hub" / "bob--tiny-lora" / sha).exists()


def changed(adapter, **fields) -> bytes:
    return json.dumps(json.loads((adapter / store.ADAPTER_CONFIG).read_text()) | fields).encode()


def test_unsuitable_adapters_are_refused_in_one_line(hub_server, adapter, engine, cache):
    def refused(error, match, **changes):
        hub_server.repos.clear()
        on_hub(hub_server, adapter, **changes)
        with pytest.raises(error, match=match) as caught:
            Catalogue(engine).load("bob/tiny-lora")
        assert "\n" not in str(caught.value)

    config, weights = store.ADAPTER_CONFIG, store.ADAPTER_WEIGHTS
    other = (adapter / "README.md").read_bytes().replace(b"base_model: tiny-bert", b"base_model: gpt2")
    refused(AdapterError, "pickled", **{weights: None, "adapter_model.bin": b"x"})
    refused(AdapterError, "not a PEFT adapter", **{config: None})
    refused(AdapterError, "for base model gpt2", **{config: changed(adapter, base_model_name_or_path="gpt2")})
    refused(BaseModelError, "needs another base model. Base model gpt2", **{"README.md": other})
    refused(AdapterError, "rank 1000000", **{config: changed(adapter, r=1_000_000)})
    refused(AdapterError, "rank_pattern", **{config: changed(adapter, rank_pattern={"query": 1_000_000})})
    refused(AdapterError, "damaged", **{weights: (adapter / weights).read_bytes()[:-10]})
    refused(AdapterError, "6 MB, over the limit of 5 MB: ask its author", **{"results.json": b" " * 6_000_000})


def downloaded(server) -> list[str]:
    """Return the names of the files that were downloaded."""
    downloads = [request for request in server.requests if request.startswith("GET /bob/tiny-lora/resolve/")]
    return [request.rpartition("/")[2] for request in downloads]


def test_only_pictures_of_the_card_are_downloaded(hub_server, adapter, engine, cache):
    pictures = {f"{number}.png": b"x" * 6_000_000 for number in range(3)}
    on_hub(hub_server, adapter, **pictures)
    folder = Catalogue(engine).load("bob/tiny-lora").adapter.folder
    assert {path.name for path in folder.iterdir()} == {path.name for path in adapter.iterdir()}
    assert {path.name for path in folder.glob("*.png")} == set(plots.FILES)
    assert not pictures.keys() & set(downloaded(hub_server))


def test_total_size_is_limited(hub_server, adapter, engine, cache, monkeypatch):
    largest = max(path.stat().st_size for path in adapter.iterdir())
    monkeypatch.setenv("ARENA_MAX_ADAPTER_MB", str((largest + 1) / 1e6))
    on_hub(hub_server, adapter)
    with pytest.raises(AdapterError, match="raise ARENA_MAX_ADAPTER_MB if you trust it"):
        Catalogue(engine).load("bob/tiny-lora")
    assert not downloaded(hub_server)


@pytest.mark.parametrize(("field", "value"), [("base_model_name_or_path", "gpt2"), ("r", 7)])
def test_a_refused_adapter_is_removed_and_not_downloaded_again(hub_server, adapter, engine, cache, field, value):
    """It is refused by its config alone, or by the engine because its weights do not match."""
    on_hub(hub_server, adapter, **{store.ADAPTER_CONFIG: changed(adapter, **{field: value})})
    catalogue = Catalogue(engine)
    for _ in range(2):
        with pytest.raises(AdapterError, match="bob/tiny-lora"):
            catalogue.load("bob/tiny-lora")
        assert not list((cache / "hub").iterdir())
    assert downloaded(hub_server).count(store.ADAPTER_WEIGHTS) == 1


def test_a_refused_commit_does_not_replace_the_loaded_one(hub_server, adapter, engine, cache):
    first = on_hub(hub_server, adapter)
    catalogue = Catalogue(engine, repos=["bob/tiny-lora"])
    catalogue.refresh()
    before = catalogue.predict(TEXTS, "bob/tiny-lora")
    on_hub(hub_server, adapter, **{store.ADAPTER_CONFIG: changed(adapter, r=7)})
    catalogue.refresh()
    for _ in range(3):
        assert [p.scores for p in catalogue.predict(TEXTS, "bob/tiny-lora")] == [p.scores for p in before]
    assert downloaded(hub_server).count(store.ADAPTER_CONFIG) == 2
    assert [path.name for path in (cache / "hub" / "bob--tiny-lora").iterdir()] == [first]


def test_missing_files_are_downloaded_again(hub_server, adapter, engine, cache):
    on_hub(hub_server, adapter)
    catalogue = Catalogue(engine)
    folder = catalogue.load("bob/tiny-lora").adapter.folder
    shutil.rmtree(cache / "hub")
    assert len(catalogue.predict(TEXTS, "bob/tiny-lora")) == 2
    assert folder.is_dir()


def test_an_adapter_listed_at_a_commit_stays_at_it(hub_server, adapter, engine, cache):
    first = on_hub(hub_server, adapter)
    on_hub(hub_server, adapter, **{"results.json": None})
    catalogue = Catalogue(engine, repos=[f"bob/tiny-lora@{first}"])
    catalogue.refresh()
    assert len(catalogue.predict(TEXTS, "bob/tiny-lora")) == 2
    assert [(entry.name, entry.source, entry.revision) for entry in catalogue.entries] == [
        ("bob/tiny-lora", "hub", first)
    ]


def test_unknown_fields_in_the_config_are_ignored(hub_server, adapter, engine, cache):
    on_hub(hub_server, adapter, **{store.ADAPTER_CONFIG: changed(adapter, from_the_future=[1, 2])})
    assert Catalogue(engine).load("bob/tiny-lora").adapter.labels


def test_too_large_weights_are_not_downloaded(hub_server, adapter, engine, cache, monkeypatch):
    monkeypatch.setenv("ARENA_MAX_ADAPTER_MB", "0.001")
    on_hub(hub_server, adapter)
    with pytest.raises(AdapterError, match="over the limit of 0 MB"):
        Catalogue(engine).load("bob/tiny-lora")
    assert not any("resolve" in request for request in hub_server.requests)


@pytest.mark.parametrize(
    "name", ["", "nobody", "a/b/../c", "a/b/.git", "../etc/passwd", "bob/no such", "hf_secretsecret/x y"]
)
def test_an_invalid_repo_id_is_refused(hub_server, engine, name):
    with pytest.raises(HubError, match="not a Hub id") as caught:
        Catalogue(engine).load(name)
    assert "hf_secret" not in str(caught.value)


def in_folders(server, adapter, *folders: str, **others: bytes) -> str:
    """Add bob/many with the adapter's files in each of the folders."""
    contents = dict(others)
    for folder in folders:
        for path in adapter.iterdir():
            contents[f"{folder}/{path.name}"] = path.read_bytes()
    return server.add_repo("bob/many", contents)


def test_adapters_in_folders_of_a_repo_are_loaded_by_name(hub_server, adapter, engine, cache):
    card = b"---\nbase_model: tiny-bert\n---\n# all runs"
    sha = in_folders(hub_server, adapter, "default", "runs/checkpoint-12", **{"README.md": card})
    catalogue = Catalogue(engine)
    wanted = {
        "bob/many/default": "bob/many/default",
        f"bob/many/runs/checkpoint-12@{sha}": "bob/many/runs/checkpoint-12",
        "https://huggingface.co/bob/many/tree/main/default/": "bob/many/default",
    }
    for name, served in wanted.items():
        entry = catalogue.load(name)
        assert (entry.name, entry.revision) == (served, sha)
        assert len(catalogue.predict(TEXTS, served)) == 2
    assert {path.name for path in (cache / "hub").iterdir()} == {
        "bob--many--default",
        "bob--many--runs%2Fcheckpoint-12",
    }
    for folder in (cache / "hub").iterdir():
        assert [path.name for path in folder.iterdir()] == [sha]
        assert {path.name for path in (folder / sha).iterdir()} == {path.name for path in adapter.iterdir()}


def test_folders_with_adapters_are_named(hub_server, adapter, engine, cache):
    in_folders(hub_server, adapter, "default", "runs/checkpoint-12", **{"docs/config.json": b"{}", "notes.txt": b""})
    for name in ("bob/many", "bob/many/docs", "bob/many/nothing"):
        with pytest.raises(AdapterError) as caught:
            Catalogue(engine).load(name)
        assert "adapters in default, runs/checkpoint-12: name one as bob/many/default" in str(caught.value)
    on_hub(hub_server, adapter)
    with pytest.raises(AdapterError, match="use bob/tiny-lora"):
        Catalogue(engine).load("bob/tiny-lora/default")


def test_a_listed_folder_survives_a_restart(hub_server, adapter, engine, cache):
    in_folders(hub_server, adapter, "default")
    catalogue = Catalogue(engine, repos=["bob/many/default"])
    catalogue.refresh()
    assert [entry.name for entry in Catalogue(engine, repos=["bob/many/default"]).entries] == ["bob/many/default"]


def test_a_folder_may_be_loaded_if_its_repo_may(hub_server, adapter, engine, cache, monkeypatch):
    in_folders(hub_server, adapter, "default")
    monkeypatch.setenv("ARENA_ALLOW_LOADING", "bob/many")
    assert Catalogue(engine).load("bob/many/default").name == "bob/many/default"
    monkeypatch.setenv("ARENA_ALLOW_LOADING", "bob/other")
    with pytest.raises(HubError, match="bob/many/default may not be loaded here"):
        Catalogue(engine).load("bob/many/default")


def test_a_missing_repo_is_refused(hub_server, engine):
    with pytest.raises(HubError, match="Adapter bob/nothing: there is no such repo"):
        Catalogue(engine).load("bob/nothing")


def test_an_adapter_of_another_base_gets_its_own_engine(
    hub_server, trained, adapter, tiny, cache, tmp_path, monkeypatch
):
    from conftest import make_base

    from adapter_arena.models import bases

    other = make_base(tmp_path / "other-bert", "bert")
    monkeypatch.setitem(bases.BASES, "tiny-bert", dataclasses.replace(tiny, id="tiny-bert"))
    on_hub(hub_server, adapter)
    catalogue = Catalogue(Engine(other))
    entry = catalogue.load("bob/tiny-lora")
    assert entry.base_model == "tiny-bert"
    assert len(catalogue.predict(TEXTS, "bob/tiny-lora")) == 2


# ---------------------------------------------------------------- votes


def test_votes_of_two_apps_meet_in_one_dataset(hub_server, tmp_path, monkeypatch):
    monkeypatch.setattr(votes, "_SHARE_SECONDS", 0.01)
    here, there = votes.Votes(tmp_path / "a"), votes.Votes(tmp_path / "b")
    here.record("lora", "ia3")
    for copy in (here, there):
        copy.share("alice/duels")
    there.record("full", "ia3")
    wait_until(lambda: len(shared(hub_server, "alice/duels")) == 2)
    assert hub_server.repos["dataset", "alice/duels"].private
    here.record("dora", "ia3")
    # Wait for the last vote too: its thread would otherwise share it with the server of the next test.
    wait_until(lambda: len(shared(hub_server, "alice/duels")) == 3)
    wait_until(lambda: {row.adapter for row in here.tally()} == {"lora", "ia3", "full", "dora"})


def test_votes_are_stored_locally_while_the_hub_fails(hub_server, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(votes, "_SHARE_SECONDS", 0.01)
    hub_server.fail(r"POST /api/repos/create", Fault(status=403, times=ALWAYS))
    mine = votes.Votes(tmp_path)
    mine.share("alice/votes")
    mine.record("lora", "ia3")
    assert len(mine.tally()) == 2
    hub_server.clear()
    mine.record("lora", "ia3", tie=True)
    wait_until(lambda: len(shared(hub_server, "alice/votes")) == 2)


def shared(server, repo_id: str) -> list[bytes]:
    """Return the votes in the dataset; none before it is created."""
    repo = server.repos.get(("dataset", repo_id))
    return repo.files.get(votes.FILE, b"").splitlines() if repo and repo.commits else []
