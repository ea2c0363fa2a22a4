"""The test Hub, as the unmodified client sees it; how the client takes each fault is what code around it relies on."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before the client is imported. With Xet it would send large files to a store that is not part of the Hub's own API.
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")  # whatever forgets its endpoint is refused, and stays here

import httpx2
import pytest
from hub_server import BAD_TOKEN, Account, Fault, HubServer
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

WEIGHTS = bytes(range(256)) * 1000
CARD = """---
license: mit
library_name: peft
base_model: org/base
base_model_relation: adapter
pipeline_tag: text-classification
datasets: [org/data]
tags: [mine]
model-index:
- name: x
  results:
  - task: {type: text-classification}
    dataset: {name: Data, type: org/data}
    metrics:
    - {type: accuracy, value: 0.9}
---
# An adapter
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    assert constants.HF_HUB_DISABLE_XET, "HF_HUB_DISABLE_XET=1 must be set before huggingface_hub is first imported"
    with HubServer() as server:
        yield server


@pytest.fixture
def api(hub) -> HfApi:
    client = HfApi(endpoint=hub.url, token="hf_write")
    client.create_repo("alice/x")
    hub.requests.clear()
    return client


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "folder"
    (made / "plots").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(WEIGHTS)
    (made / "README.md").write_text(CARD)
    (made / "plots" / "loss.json").write_text("{}")
    return made


def add(api: HfApi, name: str = "a.json", content: bytes = b"{}", **more) -> str:
    return api.create_commit("alice/x", [CommitOperationAdd(name, content)], commit_message="Add", **more).oid


def fetch(hub: HubServer, cache: Path, name: str = "model.safetensors", **more) -> bytes:
    more = {"token": False, "cache_dir": cache} | more
    return Path(hf_hub_download("bob/y", name, endpoint=hub.url, **more)).read_bytes()


def told(error: pytest.ExceptionInfo) -> int:
    return error.value.response.status_code


# Accounts and rights


def test_whoami_tells_the_role_and_the_organisations_of_each_token(hub):
    hub.accounts["hf_fine"] = Account("carol", "fine-grained read", orgs=("lab",))
    api = HfApi(endpoint=hub.url)
    assert api.whoami("hf_write")["auth"]["accessToken"]["role"] == "write"
    assert api.whoami("hf_read")["auth"]["accessToken"]["role"] == "read"
    carol = api.whoami("hf_fine")
    assert (carol["name"], [org["name"] for org in carol["orgs"]]) == ("carol", ["lab"])
    assert carol["auth"]["accessToken"]["fineGrained"]["scoped"][0]["permissions"] == ["repo.content.read"]
    with pytest.raises(HfHubHTTPError, match="Invalid user token") as error:
        api.whoami("hf_wrong")
    assert told(error) == 401


@pytest.mark.parametrize(("token", "repo_id"), [("hf_read", "alice/z"), ("hf_write", "bob/z")])
def test_a_repo_is_made_only_by_a_write_token_in_its_own_namespace(hub, token, repo_id):
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(endpoint=hub.url, token=token).create_repo(repo_id)
    assert told(error) == 403
    assert not hub.repos


def test_who_may_not_write_makes_no_commit(hub, api):
    with pytest.raises(HfHubHTTPError) as error:
        add(HfApi(endpoint=hub.url, token="hf_bob"))
    assert told(error) == 403
    with pytest.raises(RepositoryNotFoundError) as error:  # the client's word for an anonymous 401
        add(HfApi(endpoint=hub.url, token=False))
    assert told(error) == 401
    assert hub.commits_made["model", "alice/x"] == 0


def test_an_organisation_s_repos_are_its_members(hub):
    hub.accounts["hf_lab"] = Account("carol", orgs=("lab",))
    assert HfApi(endpoint=hub.url, token="hf_lab").create_repo("lab/x").repo_id == "lab/x"


def test_a_repo_that_exists_is_a_conflict_unless_that_is_fine(hub, api):
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo("alice/x")
    assert told(error) == 409
    assert api.create_repo("alice/x", exist_ok=True) == f"{hub.url}/alice/x"
    api.delete_repo("alice/x")
    assert not api.repo_exists("alice/x")


def test_a_private_repo_is_invisible_to_others(hub, tmp_path):
    hub.add_repo("bob/y", {"a.json": b"{}"}, private=True)
    mine, other, nobody = (HfApi(endpoint=hub.url, token=token) for token in ("hf_bob", "hf_write", False))
    assert mine.model_info("bob/y").private
    assert [model.id for model in mine.list_models(author="bob")] == ["bob/y"]
    for client, status in ((other, 404), (nobody, 401)):
        assert not list(client.list_models(author="bob"))
        with pytest.raises(RepositoryNotFoundError) as error:
            client.model_info("bob/y")
        assert told(error) == status
        with pytest.raises(RepositoryNotFoundError):
            fetch(hub, tmp_path, "a.json", token=client.token)
    hub.repos["model", "bob/y"].private = False
    assert fetch(hub, tmp_path, "a.json") == b"{}"


# Upload, download, history


@pytest.mark.parametrize(("kind", "more"), [("model", {}), ("dataset", {}), ("space", {"space_sdk": "gradio"})])
def test_a_folder_goes_up_in_one_commit_and_comes_down_the_same(hub, tmp_path, folder, kind, more):
    api = HfApi(endpoint=hub.url, token="hf_write")
    where = {"repo_id": "alice/up", "repo_type": kind}
    api.create_repo(**where, private=True, **more)
    commit = api.upload_folder(**where, folder_path=folder)
    assert hub.commits_made[kind, "alice/up"] == 1
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert hub.repos[kind, "alice/up"].files.items() >= files.items()
    assert hub.repos[kind, "alice/up"].head.files["model.safetensors"].lfs
    down = {**where, "endpoint": hub.url, "token": "hf_write", "cache_dir": tmp_path / "cache"}
    snapshot = Path(snapshot_download(**down))
    assert snapshot.name == commit.oid
    assert {name: (snapshot / name).read_bytes() for name in files} == files
    assert Path(hf_hub_download(**down, filename="plots/loss.json")).read_text() == "{}"
    found = api.repo_info(**where, files_metadata=True)
    weights = next(file for file in found.siblings if file.rfilename == "model.safetensors")
    assert (weights.size, weights.lfs.size, found.private) == (len(WEIGHTS), len(WEIGHTS), True)


def test_what_is_stored_is_not_sent_again(hub, api, folder):
    first = api.upload_folder(repo_id="alice/x", folder_path=folder)
    hub.requests.clear()
    assert api.upload_folder(repo_id="alice/x", folder_path=folder).oid == first.oid  # nothing changed, no commit
    add(api, "copy.safetensors", WEIGHTS)  # the content is there, under another name
    assert not [request for request in hub.requests if request.startswith("PUT")]
    assert hub.commits_made["model", "alice/x"] == 2


def test_a_commit_holds_all_of_its_operations_or_none(hub, api):
    add(api)
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        api.create_commit(
            "alice/x",
            [CommitOperationAdd("b.json", b"{}"), CommitOperationDelete("missing.json")],
            commit_message="Half",
        )
    assert set(hub.repos["model", "alice/x"].files) == {".gitattributes", "a.json"}
    api.delete_file("a.json", "alice/x")
    assert [entry.title for entry in api.list_repo_commits("alice/x")][1:] == ["Add", "initial commit"]
    assert api.list_repo_files("alice/x") == [".gitattributes"]


def test_a_stale_parent_commit_is_refused(hub, api):
    first = add(api)
    second = add(api, content=b"[]", parent_commit=first)
    with pytest.raises(HfHubHTTPError) as error:
        add(api, content=b"1", parent_commit=first)
    assert told(error) == 412
    assert api.model_info("alice/x").sha == second


def test_tags_name_commits_and_revisions_that_do_not_exist_are_refused(hub, api, tmp_path):
    first = add(api)
    api.create_tag("alice/x", tag="run-1", revision=first)
    add(api, content=b"[]")
    refs = api.list_repo_refs("alice/x")
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("run-1", first)]
    assert refs.branches[0].target_commit == api.model_info("alice/x").sha != first
    assert api.model_info("alice/x", revision="run-1").sha == first
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag("alice/x", tag="run-1")
    assert told(error) == 409
    api.create_tag("alice/x", tag="run-1", exist_ok=True)
    with pytest.raises(RevisionNotFoundError):
        api.model_info("alice/x", revision="run-2")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("alice/x", "missing.json", cache_dir=tmp_path)


def test_folders_and_paths_are_listed(hub, api, folder):
    hub.page_size = 2
    api.upload_folder(repo_id="alice/x", folder_path=folder)
    top = [".gitattributes", "README.md", "model.safetensors", "plots"]
    assert [entry.path for entry in api.list_repo_tree("alice/x")] == top
    assert [entry.path for entry in api.list_repo_tree("alice/x", recursive=True)] == [*top, "plots/loss.json"]
    assert [entry.path for entry in api.list_repo_tree("alice/x", "plots")] == ["plots/loss.json"]
    weights, plots = api.get_paths_info("alice/x", ["model.safetensors", "plots", "missing"], expand=True)
    assert (weights.lfs.size, weights.last_commit.title) == (len(WEIGHTS), "Upload folder using huggingface_hub")
    assert plots.path == "plots"


# Search


def test_models_are_listed_over_pages_by_author_and_by_what_their_cards_say(hub):
    for number in range(5):
        hub.add_repo(f"alice/a{number}", {"README.md": CARD.encode(), "model.safetensors": WEIGHTS})
    hub.add_repo("alice/other", {"README.md": CARD.replace("org/base", "org/else").encode()})
    hub.add_repo("bob/a", {"README.md": CARD.encode()})
    hub.page_size = 2
    api = HfApi(endpoint=hub.url, token=False)
    wish = {"author": "alice", "filter": ["base_model:adapter:org/base", "mine", "peft", "dataset:org/data"]}
    found = list(api.list_models(**wish, expand=["cardData", "sha", "lastModified"], sort="last_modified"))
    assert [model.id for model in found] == [f"alice/a{number}" for number in (4, 3, 2, 1, 0)]
    assert hub.requests == ["GET /api/models"] * 3
    assert found[0].sha == hub.repos["model", "alice/a4"].head.sha
    assert found[0].card_data.eval_results[0].metric_value == 0.9
    assert found[0].tags is None  # not asked for
    assert [model.id for model in api.list_models(**wish, limit=1)] == ["alice/a0"]
    assert [model.id for model in api.list_models(search="OTHER")] == ["alice/other"]
    with pytest.raises(HfHubHTTPError, match="cannot expand cardDate"):
        list(api.list_models(expand=["cardDate"]))


# Cards, spaces, jobs


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("license: mit", "license: [", "cannot be read"),
        ("license: mit", "license: My own", '"license" must be one of'),
        ("{name: Data, type: org/data}", "{name: Data}", r'"model-index\[0\].results\[0\].dataset.type" is required'),
        ("base_model: org/base", "base_model: a folder/of mine", '"base_model" with value'),
    ],
)
def test_a_card_that_the_hub_would_refuse_is_refused_before_anything_is_sent(hub, api, old, new, says):
    with pytest.raises(ValueError, match=says):
        add(api, "README.md", CARD.replace(old, new).encode())
    assert hub.requests == ["POST /api/validate-yaml"]
    add(api, "README.md", CARD.encode())


def test_a_space_keeps_its_hardware_secrets_and_variables(hub):
    api = HfApi(endpoint=hub.url, token="hf_write")
    secrets = [{"key": "HF_TOKEN", "value": "hf_secret"}]
    api.create_repo(
        "alice/app", repo_type="space", space_sdk="gradio", space_hardware="t4-small", space_secrets=secrets
    )
    api.add_space_secret("alice/app", "OTHER", "value")
    assert api.add_space_variable("alice/app", "BASE", "minilm")["BASE"].value == "minilm"
    assert set(api.get_space_secrets("alice/app")) == {"HF_TOKEN", "OTHER"}
    assert api.request_space_hardware("alice/app", "a10g-small", sleep_time=300).requested_hardware == "a10g-small"
    assert api.get_space_runtime("alice/app").sleep_time == 300
    assert hub.repos["space", "alice/app"].secrets == {"HF_TOKEN": "hf_secret", "OTHER": "value"}
    card = CommitOperationAdd("README.md", b"---\nsdk: gradio\ncolorFrom: beige\n---\n")
    with pytest.raises(ValueError, match="colorFrom"):
        api.create_commit("alice/app", [card], commit_message="Card", repo_type="space")


def test_a_job_is_recorded_runs_and_ends_and_has_logs(hub):
    api = HfApi(endpoint=hub.url, token="hf_write")
    hub.job_logs = ["epoch 1", "epoch 2"]
    job = api.run_job(
        image="python:3.12", command=["train"], flavor="t4-small", secrets={"HF_TOKEN": "hf_s"}, timeout="2h"
    )
    assert (job.status.stage, job.docker_image, job.owner.name) == ("RUNNING", "python:3.12", "alice")
    assert hub.jobs[job.id].spec["secrets"] == {"HF_TOKEN": "hf_s"}
    assert hub.jobs[job.id].spec["timeoutSeconds"] == 7200
    assert list(api.fetch_job_logs(job_id=job.id)) == ["epoch 1", "epoch 2"]
    assert [api.inspect_job(job_id=job.id).status.stage for _ in range(3)] == ["RUNNING", "COMPLETED", "COMPLETED"]
    assert list(api.fetch_job_logs(job_id=job.id, follow=True, tail=1)) == ["epoch 2"]


def test_what_the_hub_does_not_know_is_named(hub, api):
    with pytest.raises(HfHubHTTPError, match="no GET /api/models/alice/x/discussions"):
        list(api.get_repo_discussions("alice/x"))


# Faults


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_status_is_an_http_error_and_no_commit_is_made_or_tried_again(hub, api, status):
    hub.fail("/commit/", Fault(status=status, headers={"Retry-After": "1"}, body={"error": "as armed"}))
    with pytest.raises(HfHubHTTPError, match="as armed") as error:
        add(api)
    assert (told(error), error.value.response.headers["Retry-After"]) == (status, "1")
    assert sum("/commit/" in request for request in hub.requests) == 1
    assert hub.commits_made["model", "alice/x"] == 0


def test_a_token_that_expired_is_a_401_of_its_own(hub, api):
    hub.fail("/api/models/alice/x", Fault(status=401, body={"error": BAD_TOKEN}))
    with pytest.raises(HfHubHTTPError) as error:
        api.model_info("alice/x")
    assert not isinstance(error.value, RepositoryNotFoundError)


def test_a_passing_status_is_waited_out_where_the_client_does_so(hub, api):
    hub.fail("/preupload/", Fault(status=503))
    assert add(api)
    assert sum("/preupload/" in request for request in hub.requests) == 2


def test_a_lost_reply_leaves_a_commit_that_the_client_does_not_know_of(hub, api):
    hub.fail("/commit/", Fault(lose_reply=True))
    with pytest.raises(httpx2.RemoteProtocolError):
        add(api)
    assert hub.commits_made["model", "alice/x"] == 1
    assert "a.json" in hub.repos["model", "alice/x"].files


def test_a_commit_that_is_cut_off_is_not_made(hub, api):
    hub.fail("/commit/", Fault(cut=20))
    with pytest.raises(httpx2.TransportError):
        add(api)
    assert hub.commits_made["model", "alice/x"] == 0


def test_an_upload_that_is_cut_off_is_sent_again(hub, api):
    hub.fail("PUT", Fault(cut=len(WEIGHTS) // 2))
    add(api, "model.safetensors", WEIGHTS)
    assert sum(request.startswith("PUT") for request in hub.requests) == 2
    assert hub.repos["model", "alice/x"].files["model.safetensors"] == WEIGHTS


def test_an_upload_with_a_flipped_byte_is_refused(hub, api):
    hub.fail("PUT", Fault(flip=True))
    with pytest.raises(RuntimeError) as error:
        add(api, "model.safetensors", WEIGHTS)
    assert error.value.__cause__.response.status_code == 422
    assert hub.commits_made["model", "alice/x"] == 0


def test_a_download_that_is_cut_off_goes_on_where_it_ended(hub, tmp_path):
    hub.add_repo("bob/y", {"model.safetensors": WEIGHTS})
    hub.fail("GET .*/resolve/", Fault(cut=len(WEIGHTS) // 2))
    assert fetch(hub, tmp_path) == WEIGHTS
    assert sum(request.startswith("GET") for request in hub.requests) == 2


def test_a_download_that_is_reset_ends_in_an_error_of_the_network(hub, tmp_path):
    hub.add_repo("bob/y", {"model.safetensors": WEIGHTS})
    hub.fail("GET .*/resolve/", Fault(cut=len(WEIGHTS) // 2, reset=True))
    with pytest.raises(httpx2.ReadError):
        fetch(hub, tmp_path)
    assert fetch(hub, tmp_path) == WEIGHTS


def test_a_flipped_byte_passes_the_download_and_fails_the_checksums(hub, tmp_path):
    hub.add_repo("bob/y", {"model.safetensors": WEIGHTS})
    hub.fail("GET .*/resolve/", Fault(flip=True))
    got = fetch(hub, tmp_path)
    assert len(got) == len(WEIGHTS)
    assert got != WEIGHTS
    checked = HfApi(endpoint=hub.url, token=False).verify_repo_checksums("bob/y", cache_dir=tmp_path)
    assert [wrong["path"] for wrong in checked.mismatches] == ["model.safetensors"]


def test_a_download_that_is_refused_is_not_found_locally(hub, tmp_path):
    hub.add_repo("bob/y", {"model.safetensors": WEIGHTS})
    hub.fail("HEAD", Fault(status=403))
    with pytest.raises(LocalEntryNotFoundError) as error:
        fetch(hub, tmp_path)
    assert error.value.__cause__.response.status_code == 403


def test_a_delay_is_a_timeout_for_who_waits_less(hub, api):
    hub.fail("/api/models", Fault(delay=0.5, times=2))
    with pytest.raises(httpx2.ReadTimeout):
        api.model_info("alice/x", timeout=0.1)
    assert api.model_info("alice/x", timeout=5)


def test_faults_strike_as_often_as_they_are_armed_and_can_be_disarmed(hub, api):
    fault = Fault(status=404, body={"error": "armed"}, times=2)
    hub.fail("GET /api/models/alice/x$", fault)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="armed"):
            api.model_info("alice/x")
    assert api.model_info("alice/x")
    hub.fail("GET", Fault(status=404, times=None))
    with pytest.raises(HfHubHTTPError):
        api.model_info("alice/x")
    hub.clear()
    assert api.model_info("alice/x")
    assert fault.times == 2


def test_a_hub_that_is_gone_refuses_and_comes_back_with_all_it_had(hub, api, tmp_path):
    commit, url = add(api), hub.url
    down = {"repo_id": "alice/x", "endpoint": url, "cache_dir": tmp_path, "token": False}
    snapshot = snapshot_download(**down)
    hub.gone()
    with pytest.raises(httpx2.ConnectError):
        api.model_info("alice/x")
    assert snapshot_download(**down) == snapshot  # from the cache
    hub.back()
    assert (hub.url, api.model_info("alice/x").sha) == (url, commit)


def test_a_large_number_of_connections_is_served(hub, tmp_path):
    files = {f"{number}.json": str(number).encode() for number in range(40)}
    hub.add_repo("bob/y", files)
    folder = Path(snapshot_download("bob/y", endpoint=hub.url, cache_dir=tmp_path, token=False, max_workers=16))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_part_of_a_file_can_be_asked_for(hub):
    hub.add_repo("bob/y", {"model.safetensors": WEIGHTS})
    url = f"{hub.url}/bob/y/resolve/main/model.safetensors"
    part = get_session().get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, WEIGHTS[10:20])
    assert get_session().get(url, headers={"Range": f"bytes={len(WEIGHTS)}-"}).status_code == 416
