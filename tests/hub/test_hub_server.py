"""Of the test Hub, what tests of the product rely on without noticing its absence: that it refuses, hides and loses."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from hub_server import Fault, HubServer
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

WEIGHTS = bytes(range(256)) * 1000
CARD = """---
license: mit
library_name: peft
base_model: org/base
base_model_relation: adapter
pipeline_tag: text-classification
datasets: [org/data]
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
    with HubServer() as server:
        yield server


@pytest.fixture
def api(hub) -> HfApi:
    client = HfApi(endpoint=hub.url, token="hf_write")
    client.create_repo("alice/x")
    hub.requests.clear()
    return client


def add(api: HfApi, name: str = "a.json", content: bytes = b"{}") -> str:
    return api.create_commit("alice/x", [CommitOperationAdd(name, content)], commit_message="Add").oid


def status(error: pytest.ExceptionInfo) -> int:
    return error.value.response.status_code


@pytest.mark.parametrize(("token", "repo_id"), [("hf_read", "alice/z"), ("hf_write", "bob/z")])
def test_a_repo_is_made_only_by_a_write_token_in_its_own_namespace(hub, token, repo_id):
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(endpoint=hub.url, token=token).create_repo(repo_id)
    assert status(error) == 403
    assert not hub.repos


def test_who_may_not_write_makes_no_commit(hub, api):
    with pytest.raises(HfHubHTTPError) as error:
        add(HfApi(endpoint=hub.url, token="hf_bob"))
    assert status(error) == 403
    with pytest.raises(RepositoryNotFoundError) as error:  # the client's word for an anonymous 401
        add(HfApi(endpoint=hub.url, token=False))
    assert status(error) == 401
    assert hub.commits_made["model", "alice/x"] == 0


def test_a_private_repo_is_invisible_to_others(hub, tmp_path):
    hub.add_repo("bob/y", {"a.json": b"{}"}, private=True)
    mine, other, nobody = (HfApi(endpoint=hub.url, token=token) for token in ("hf_bob", "hf_write", False))
    assert mine.model_info("bob/y").private
    for client, refusal in ((other, 404), (nobody, 401)):
        assert not list(client.list_models(author="bob"))
        with pytest.raises(RepositoryNotFoundError) as error:
            client.model_info("bob/y")
        assert status(error) == refusal
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download("bob/y", "a.json", endpoint=hub.url, token=client.token, cache_dir=tmp_path)


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


def test_a_lost_reply_leaves_a_commit_that_the_client_does_not_know_of(hub, api):
    hub.fail("/commit/", Fault(lose_reply=True))
    with pytest.raises(httpx2.RemoteProtocolError):
        add(api)
    assert hub.commits_made["model", "alice/x"] == 1
    assert "a.json" in hub.repos["model", "alice/x"].files


@pytest.mark.parametrize("fault", [Fault(flip=True), Fault(cut=len(WEIGHTS) // 2)])
def test_a_fault_of_a_download_strikes_as_often_as_it_is_armed(hub, tmp_path, fault):
    hub.add_repo("bob/y", {"model.safetensors": WEIGHTS})
    hub.fail("GET .*/resolve/", fault)
    found = []
    for cache in ("first", "second"):
        place = tmp_path / cache
        path = hf_hub_download("bob/y", "model.safetensors", endpoint=hub.url, token=False, cache_dir=place)
        found.append(Path(path).read_bytes())
    downloads = [request for request in hub.requests if request.startswith("GET /bob/y/resolve/")]
    assert (len(found[0]), found[1]) == (len(WEIGHTS), WEIGHTS)
    # A flipped byte passes the client's own checks; it asks for the rest of a download that was cut.
    assert (found[0] != WEIGHTS, len(downloads)) == ((True, 2) if fault.flip else (False, 3))
