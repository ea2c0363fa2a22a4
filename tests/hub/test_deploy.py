"""Deploying the Space, against the test server."""

import pytest

from adapter_arena.errors import HubError
from adapter_arena.hub import deploy

NEEDED = {
    "app.py",
    "requirements.txt",
    "README.md",
    "adapter_arena/serve/engine.py",
    "adapter_arena/ui/css/base.css",
    "adapters/minilm-imdb-lora/adapter_model.safetensors",
}
NOT_NEEDED = ("tests", "benchmarks", ".venv", "runs")


def test_space_contains_the_app_and_nothing_else(hub_server, monkeypatch):
    monkeypatch.setenv("SPACE_HF_TOKEN", "hf_for_the_space")
    assert deploy.deploy_space("alice/arena", "cpu-basic").endswith("/spaces/alice/arena")
    repo = hub_server.repos["space", "alice/arena"]
    names = set(repo.files)
    assert names >= NEEDED
    for name in names:
        assert not name.startswith(NOT_NEEDED)
        assert "__pycache__" not in name
    assert repo.secrets == {"HF_TOKEN": "hf_for_the_space"}
    assert repo.variables == {"ARENA_NAMESPACE": "alice"}


def test_deploying_again_updates_the_space(hub_server):
    deploy.deploy_space("alice/arena")
    repo = hub_server.repos["space", "alice/arena"]
    commits_before = len(repo.commits)
    assert deploy.deploy_space("alice/arena", namespace="bob")
    assert repo.variables == {"ARENA_NAMESPACE": "bob"}
    assert len(repo.commits) == commits_before  # no file changed


def test_files_that_no_longer_exist_are_deleted_from_the_space(hub_server):
    hub_server.add_repo("alice/arena", {"adapter_arena/old.py": b"", "notes.txt": b"mine"}, repo_type="space")
    deploy.deploy_space("alice/arena")
    files = hub_server.repos["space", "alice/arena"].files
    assert "adapter_arena/old.py" not in files
    assert files["notes.txt"] == b"mine"


@pytest.mark.parametrize(("space_id", "message"), [("bob/arena", "may not write to bob"), ("arena", "not a Space id")])
def test_invalid_space_is_refused(hub_server, space_id, message):
    with pytest.raises(HubError, match=message):
        deploy.deploy_space(space_id)
