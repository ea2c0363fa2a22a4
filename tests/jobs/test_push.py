"""The button that publishes an adapter which was trained on the page."""

import shutil

import pytest

from adapter_arena.errors import HubError
from adapter_arena.jobs.push import push


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "mine")


def test_an_adapter_is_pushed_with_the_token_of_who_presses_the_button(hub_server, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "of the Space's owner")
    line = push(folder, "alice/films", private=True, token="hf_write")
    assert "/alice/films at commit" in line
    assert "adapter_model.safetensors" in hub_server.repos["model", "alice/films"].files


def test_without_a_token_that_of_the_machine_is_used_but_never_that_of_a_space(hub_server, folder, monkeypatch):
    assert f"/alice/{folder.name} at commit" in push(folder, "", private=False, token=None)
    monkeypatch.setenv("SPACE_ID", "someone/space")
    with pytest.raises(HubError, match="Sign in with Hugging Face first"):
        push(folder, "", private=False, token=None)


def test_a_refused_push_is_one_line(hub_server, folder):
    with pytest.raises(HubError) as refused:
        push(folder, "alice/films", private=False, token="hf_invalid")
    assert "\n" not in str(refused.value)
    assert "token" in str(refused.value)
