"""The Space and the Job, against the Hub's server of the tests."""

import pytest
from hub_server import Fault

import train_space
from adapter_arena.errors import HubError
from adapter_arena.hub import deploy


def test_space_gets_what_it_needs_and_nothing_else(hub_server, monkeypatch):
    monkeypatch.setenv("SPACE_HF_TOKEN", "hf_for_the_space")
    assert deploy.space("alice/arena", "cpu-basic").endswith("/spaces/alice/arena")
    repo = hub_server.repos["space", "alice/arena"]
    names = set(repo.files)
    assert {
        "app.py",
        "requirements.txt",
        "README.md",
        "adapter_arena/serve/engine.py",
        "adapter_arena/ui/page.css",
    } <= names
    assert "adapters/minilm-imdb-lora/adapter_model.safetensors" in names
    assert not [
        name
        for name in names
        if name.startswith(("tests", "benchmarks", ".ci", ".venv", "runs")) or "__pycache__" in name
    ]
    assert repo.secrets == {"HF_TOKEN": "hf_for_the_space"}
    assert repo.variables == {"ARENA_NAMESPACE": "alice"}
    assert "hf_write" not in str(repo.variables)


def test_deploying_again_updates_the_space(hub_server):
    deploy.space("alice/arena")
    before = len(hub_server.repos["space", "alice/arena"].commits)
    deploy.space("alice/arena", namespace="bob")
    repo = hub_server.repos["space", "alice/arena"]
    assert repo.variables == {"ARENA_NAMESPACE": "bob"}
    assert len(repo.commits) - before <= 1


def test_space_of_somebody_else_is_refused(hub_server):
    with pytest.raises(HubError, match="may not write to bob"):
        deploy.space("bob/arena")
    with pytest.raises(HubError, match="no Space id"):
        deploy.space("arena")


def test_job_runs_the_same_command_and_ends_with_the_repo(hub_server, tmp_path, capsys):
    data = tmp_path / "reviews.csv"
    data.write_text("text,label\ngood,1\nbad,0\n")
    hub_server.job_logs = ["epoch 1", "token hf_abcdefghijk seen"]
    flags = ["--method", "ia3", "--dataset", str(data), "--epochs=2", "--name", "mine", "--on-jobs", "t4-small"]
    assert train_space.main(flags) == 0
    out = capsys.readouterr().out
    assert "epoch 1" in out
    assert "hf_abcdefghijk" not in out
    assert out.strip().endswith("/alice/mine")
    (job,) = hub_server.jobs.values()
    code = hub_server.repos["dataset", f"alice/{deploy.JOBS_REPO}"]
    assert code.private
    assert {"train_space.py", "requirements.txt", "data/reviews.csv", "adapter_arena/card.md.jinja"} <= set(code.files)
    command = job.spec["command"][-1]
    assert (
        "train_space.py --method ia3 --epochs=2 --name mine --dataset data/reviews.csv --push --namespace alice"
        in command
    )
    assert f"--revision {code.head.sha}" in command
    assert job.spec["flavor"] == "t4-small"
    assert "hf_write" not in command


def test_dry_run_prints_what_would_be_submitted(capsys):
    assert train_space.main(["--recipe", "minilm-imdb-ia3", "--on-jobs", "a10g-small", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "flavor      a10g-small" in out
    assert "train_space.py --recipe minilm-imdb-ia3 --push --namespace" in out


def test_job_that_fails_says_so(hub_server, capsys):
    hub_server.job_stages = ["RUNNING", "ERROR"]
    assert train_space.main(["--method", "lora", "--dataset", "sample", "--on-jobs", "t4-small"]) == 1
    assert "ended ERROR" in capsys.readouterr().err


def test_job_is_never_started_twice(hub_server, capsys):
    hub_server.fail(r"POST /api/jobs/.*", Fault(lose_reply=True))
    assert train_space.main(["--method", "lora", "--dataset", "sample", "--on-jobs", "t4-small"]) == 1
    assert "The Job was not started" in capsys.readouterr().err
    assert len(hub_server.jobs) == 1
