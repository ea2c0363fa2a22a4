"""The test server's own behaviour that the tests of the product rely on: it hides, refuses and fails."""

from pathlib import Path

import httpx2
import pytest
from hub_server import Account, Fault
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError


@pytest.fixture
def api(hub_server) -> HfApi:
    client = HfApi(endpoint=hub_server.url, token="hf_write")
    client.create_repo("alice/x")
    return client


def add(api: HfApi, name: str = "a.json", content: bytes = b"{}") -> None:
    api.create_commit("alice/x", [CommitOperationAdd(name, content)], commit_message="Add")


def test_a_private_repo_is_invisible_to_others(hub_server, api):
    hub_server.add_repo("bob/y", {"a.json": b"{}"}, private=True)
    assert HfApi(endpoint=hub_server.url, token="hf_bob").model_info("bob/y").private
    assert not list(api.list_models(author="bob"))
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("bob/y")


def test_other_accounts_cannot_commit(hub_server, api):
    with pytest.raises(HfHubHTTPError, match="rights"):
        add(HfApi(endpoint=hub_server.url, token="hf_bob"))
    assert "a.json" not in hub_server.repos["model", "alice/x"].files


def test_a_token_for_one_repo_creates_none_and_sees_no_other(hub_server, api):
    hub_server.add_repo("alice/secret", {"a.json": b"{}"}, private=True)
    scopes = {("model", "alice/x"): ("repo.content.read", "repo.write")}
    hub_server.accounts["hf_one"] = Account("alice", "fineGrained", scopes=scopes)
    limited = HfApi(endpoint=hub_server.url, token="hf_one")
    add(limited)
    with pytest.raises(RepositoryNotFoundError):
        limited.model_info("alice/secret")
    with pytest.raises(HfHubHTTPError, match="rights"):
        limited.create_repo("alice/new")
    assert limited.create_repo("alice/x", exist_ok=True).repo_id == "alice/x"  # the client falls back on reading it


@pytest.mark.parametrize("line", ["license: [", "license: My own", "language: French", "base_model: a folder/of mine"])
def test_an_invalid_card_is_refused(hub_server, api, line):
    with pytest.raises(ValueError, match="Invalid metadata"):
        add(api, "README.md", f"---\n{line}\n---\n".encode())


def test_a_lost_response_leaves_a_commit(hub_server, api):
    hub_server.fail("/commit/", Fault(lose_reply=True))
    with pytest.raises(httpx2.RemoteProtocolError):
        add(api)
    assert "a.json" in hub_server.repos["model", "alice/x"].files


def test_the_client_does_not_notice_a_damaged_download(hub_server, api, tmp_path):
    weights = bytes(range(256))
    hub_server.add_repo("bob/y", {"model.safetensors": weights})
    hub_server.fail("GET .*/resolve/", Fault(flip=True))
    path = api.hf_hub_download("bob/y", "model.safetensors", local_dir=tmp_path)
    assert Path(path).read_bytes() != weights
