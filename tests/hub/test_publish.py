"""Where a push may go, what it replaces, and what it leaves alone."""

import shutil
from types import SimpleNamespace

import pytest
from hub_server import Account, Fault
from huggingface_hub import ModelInfo

import train_space
from adapter_arena import hub, results
from adapter_arena.adapters import store
from adapter_arena.errors import HubError
from adapter_arena.hub import deploy, target_repo
from adapter_arena.train import run

ALWAYS = None
WRITE = ("repo.content.read", "repo.access.read", "repo.write")
READ = ("repo.content.read", "repo.access.read")
COMMIT = r"POST /api/models/.*/commit/.*"
pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def adapter(trained, tmp_path):
    """A copy of a trained adapter folder, as adapters/tiny-lora."""
    return shutil.copytree(trained, tmp_path / "adapters" / "tiny-lora")


@pytest.fixture
def push(adapter, capsys):
    """Publish the adapter with some flags; return the exit status and the output."""

    def run_command(*flags: str) -> tuple[int, str]:
        status = train_space.main(["--push-only", adapter.name, "--output-dir", str(adapter.parent), *flags])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run_command


@pytest.fixture
def refused_training(work, monkeypatch, capsys):
    """Start a training that pushes; return the only line of its error, after checking that nothing was trained."""
    monkeypatch.setattr(run, "train", None)

    def run_command(*flags: str) -> str:
        assert train_space.main(["--dataset=sample", "--push", *flags]) == 1
        [line] = capsys.readouterr().err.splitlines()
        return line

    return run_command


# ---------------------------------------------------------------- visibility


def test_private_onto_a_public_repo_is_refused_before_the_training(hub_server, refused_training):
    hub_server.add_repo("alice/mine", {".gitattributes": b""})
    line = refused_training("--name=mine", "--private")
    assert "alice/mine is public, which --private does not change" in line
    assert "settings" in line


def test_private_onto_a_public_repo_uploads_nothing(hub_server, push):
    assert push()[0] == 0
    repo = hub_server.repos["model", "alice/tiny-lora"]
    before = len(repo.commits)
    status, output = push("--private")
    assert (status, len(repo.commits), repo.private) == (1, before, False)
    assert "is public" in output
    repo.private = True  # as the message says
    status, output = push("--private")
    assert status == 0
    assert "published (private)" in output


def test_a_repo_made_public_during_the_training_gets_no_private_weights(hub_server, adapter):
    hub_server.add_repo("alice/tiny-lora", {".gitattributes": b""}, private=True)
    target = hub.check_target("tiny-lora", hub.PushOptions(private=True))
    hub_server.repos["model", "alice/tiny-lora"].private = False
    with pytest.raises(HubError, match="is public"):
        hub.push(adapter, target)
    assert set(hub_server.repos["model", "alice/tiny-lora"].files) == {".gitattributes"}


def test_a_private_repo_stays_private_and_the_user_is_told(hub_server, push):
    hub_server.add_repo("alice/tiny-lora", {".gitattributes": b""}, private=True)
    status, output = push()
    assert status == 0
    assert "note: alice/tiny-lora is private and stays private" in output
    assert hub_server.repos["model", "alice/tiny-lora"].private


# ---------------------------------------------------------------- files of others


def test_files_of_the_user_in_the_repo_stay(hub_server, adapter, push):
    assert push()[0] == 0
    repo = hub_server.repos["model", "alice/tiny-lora"]
    mine = {"photo.png": b"mine", "figures/loss.png": b"mine", "notes.txt": b"mine"}
    hub_server.add_repo("alice/tiny-lora", repo.files | mine)
    (adapter / "confusion_matrix.png").unlink()  # of the last run: it is replaced or deleted
    assert push()[0] == 0
    assert repo.files.items() >= mine.items()
    assert "confusion_matrix.png" not in repo.files


def test_pictures_of_the_user_stay_whatever_they_are_called(hub_server, adapter, push):
    for picture in adapter.glob("*.png"):
        picture.unlink()
    mine = {"confusion_matrix.png": b"mine", "learning_curve.png": b"mine", "reliability.png": b"mine"}
    hub_server.add_repo("alice/tiny-lora", mine)
    assert push()[0] == 0
    assert hub_server.repos["model", "alice/tiny-lora"].files.items() >= mine.items()


def test_a_picture_of_the_user_is_not_replaced_by_one_of_the_card(hub_server, adapter, push):
    (adapter / "reliability.png").write_bytes(b"of the card")
    hub_server.add_repo("alice/tiny-lora", {"reliability.png": b"mine"})
    status, output = push()
    assert status == 1
    assert "alice/tiny-lora has reliability.png, which this project did not write" in output
    assert hub_server.repos["model", "alice/tiny-lora"].files == {"reliability.png": b"mine"}


def test_an_adapter_without_results_is_pushed_again_if_nothing_changed(hub_server, adapter, push):
    (adapter / "results.json").unlink()
    for _ in range(2):
        assert push()[0] == 0
    assert len(hub_server.repos["model", "alice/tiny-lora"].commits) == 2


def test_a_renamed_repo_is_named():
    info = ModelInfo(id="alice/new", private=False, siblings=[], tags=[])
    problem = target_repo.problem_of(info, hub.Target("alice/old"), None, None)
    assert problem == "alice/old is called alice/new on the Hub: use --repo-id alice/new."


def test_pictures_of_the_user_in_the_folder_are_not_published(hub_server, adapter, push):
    (adapter / "screenshot.png").write_bytes(b"private")
    assert push()[0] == 0
    assert "screenshot.png" not in hub_server.repos["model", "alice/tiny-lora"].files


def test_a_merged_model_beside_the_adapter_is_not_deleted(hub_server, push):
    assert push()[0] == 0
    repo = hub_server.repos["model", "alice/tiny-lora"]
    model = {store.FULL_CONFIG: b"{}", store.FULL_WEIGHTS: b"mine"}
    hub_server.add_repo("alice/tiny-lora", repo.files | model)
    assert push("--language=fr")[0] == 0
    assert repo.files.items() >= model.items()


@pytest.mark.parametrize("name", ["README.md", "results.json", store.ADAPTER_WEIGHTS])
def test_a_file_that_another_program_wrote_is_replaced_only_on_request(hub_server, push, name):
    contents = {"README.md": b"---\nlibrary_name: peft\n---\n# by hand"} | {name: b"# by hand"}
    hub_server.add_repo("alice/tiny-lora", contents)
    status, output = push()
    assert status == 1
    assert name in output
    assert "--overwrite" in output
    repo = hub_server.repos["model", "alice/tiny-lora"]
    assert repo.files == contents
    assert push("--overwrite")[0] == 0
    assert b"# by hand" not in repo.files[name]


def test_a_card_edited_on_the_hub_is_replaced_only_on_request(hub_server, adapter, push):
    assert push()[0] == 0
    assert push("--language=fr")[0] == 0  # changes the card, which nobody edited
    repo = hub_server.repos["model", "alice/tiny-lora"]
    edited = repo.files["README.md"] + b"\nMy own remarks.\n"
    hub_server.add_repo("alice/tiny-lora", repo.files | {"README.md": edited})
    status, output = push()
    assert status == 1
    assert "README.md of alice/tiny-lora was edited after the last push" in output
    assert repo.files["README.md"] == edited
    assert push("--overwrite")[0] == 0


def test_a_repo_of_an_earlier_version_is_updated(hub_server, adapter, push):
    card = b"---\ntags: [peft-arena, lora]\n---\n# old"
    hub_server.add_repo("alice/tiny-lora", {"README.md": card, "results.json": b"{}", "learning_curve.png": b""})
    assert push()[0] == 0
    assert b"# old" not in hub_server.repos["model", "alice/tiny-lora"].files["README.md"]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "unet/diffusion.safetensors", "m.gguf"])
def test_a_repo_with_another_model_is_refused_before_the_training(hub_server, refused_training, name):
    hub_server.add_repo("alice/mine", {name: b"a model"})
    line = refused_training("--name=mine", "--overwrite")
    assert f"alice/mine holds another model ({name})" in line
    assert "--repo-id" in line


def test_a_push_of_someone_else_at_the_same_time_is_not_overwritten(hub_server, adapter, push, monkeypatch):
    """Another push happens between reading the repo and the commit: the commit is refused and planned again."""
    assert push()[0] == 0
    repo = hub_server.repos["model", "alice/tiny-lora"]
    commit_files = hub.client.commit_files
    pushes = []

    def interrupted(info, *arguments):
        if not pushes:
            pushes.append(hub_server.add_repo(info.id, repo.files | {"README.md": b"theirs"}))
        return commit_files(info, *arguments)

    monkeypatch.setattr(hub.client, "commit_files", interrupted)
    status, output = push("--language=fr")
    assert (status, repo.files["README.md"]) == (1, b"theirs")
    assert "README.md" in output


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("my reviews", "alice/my-reviews"),
        ("a--b", "alice/a-b"),
        ("-a", "alice/a"),
        ("critiques-françaises", "alice/critiques-fran-aises"),
        ("影评", "alice/my-adapter"),
        ("a" * 97, f"alice/{'a' * 60}"),
    ],
)
def test_a_name_that_the_hub_does_not_accept_is_refused_before_the_training(
    hub_server, refused_training, name, suggested
):
    line = refused_training("--name", name)
    assert "not a valid repo id" in line
    assert line.endswith(f"--repo-id {suggested}.")


@pytest.mark.parametrize("repo_id", ["alice/reviews", "reviews", "https://huggingface.co/alice/reviews"])
def test_repo_id_names_the_repo(hub_server, adapter, push, repo_id):
    assert push("--repo-id", repo_id)[0] == 0
    assert "adapter_config.json" in hub_server.repos["model", "alice/reviews"].files
    assert results.read(adapter).hub_id == "alice/reviews"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--repo-id=team/a", "--namespace=alice"], "leave --namespace out"),
        (["--repo-id=a..b"], "not a valid repo id"),
        (["--repo-id=x.git"], "not a valid repo id"),
        (["--repo-id=bob/a"], "may not write to bob"),
        (["--repo-id=datasets/alice/a"], "not a valid repo id"),
        (["--license=My own"], '"license" must be one of'),
        (["--language=French"], '"language" with value'),
    ],
)
def test_what_the_hub_would_refuse_is_refused_before_the_training(hub_server, refused_training, flags, message):
    assert message in refused_training(*flags)
    assert not hub_server.repos


@pytest.mark.parametrize("flag", ["--repo-id=a", "--private", "--license=mit", "--overwrite"])
def test_flags_of_a_push_are_refused_without_one(work, monkeypatch, capsys, flag):
    monkeypatch.setattr(run, "train", None)
    for command in ([], ["--compare=lora,ia3"], ["--sweep", "epochs=1,2"]):
        assert train_space.main(["--dataset=sample", flag, *command]) == 1
        assert f"{flag.partition('=')[0]} has no effect" in capsys.readouterr().err


# ---------------------------------------------------------------- tokens


def scoped(**scopes) -> Account:
    """Return alice with a fine-grained token: `scoped(model__alice__x=WRITE)` may write to the model alice/x."""
    by_entity = {}
    for entity, permissions in scopes.items():
        kind, _, name = entity.partition("__")
        by_entity[kind, name.replace("__", "/").replace("_", "-")] = permissions
    return Account("alice", "fineGrained", ("team",), by_entity)


@pytest.mark.parametrize(
    ("account", "flags"),
    [
        (scoped(user__alice=WRITE), []),
        (scoped(model__alice__tiny_lora=WRITE), []),
        (scoped(model__alice__tiny_lora=WRITE, user__alice=READ), []),
        (scoped(org__team=WRITE), ["--namespace=team"]),
        (scoped(model__team__tiny_lora=WRITE), ["--namespace=team"]),
        (Account("alice", "write", ("team",), org_role="contributor"), ["--namespace=team"]),
        (Account("alice", "write", is_described=False), []),
    ],
)
def test_a_token_that_may_write_there_pushes(hub_server, push, account, flags):
    owner = "team" if flags else "alice"
    if ("model", f"{owner}/tiny-lora") in account.scopes:
        hub_server.add_repo(f"{owner}/tiny-lora", {".gitattributes": b""}, private=True)
    hub_server.accounts["hf_write"] = account
    status, output = push(*flags)
    assert status == 0, output
    assert "adapter_config.json" in hub_server.repos["model", f"{owner}/tiny-lora"].files


@pytest.mark.parametrize(
    ("account", "flags", "message"),
    [
        (scoped(user__alice=READ), [], "may only read"),
        (scoped(), [], "may only read"),
        (scoped(dataset__alice__mine=WRITE), [], "may only read"),
        (scoped(model__alice__other=WRITE), [], "use --repo-id alice/other"),
        (scoped(org__team=WRITE), [], "use --namespace team"),
        (scoped(user__alice=WRITE), ["--namespace=team"], "use --namespace alice"),
        (scoped(model__alice__mine=WRITE), [], "check that the repo exists"),
        (scoped(model__alice__mine=("repo.write",)), [], "cannot see it"),
        (Account("alice", "read"), [], "may only read"),
        (Account("alice", "write", ("team",), org_role="read"), ["--namespace=team"], "may not write to team"),
        (Account("alice", expired=True), [], "the token has expired; create a new one"),
    ],
)
def test_a_token_that_may_not_write_is_refused_before_the_training(
    hub_server, refused_training, account, flags, message
):
    hub_server.accounts["hf_write"] = account
    assert message in refused_training("--name=mine", *flags)


def test_rights_that_the_hub_does_not_describe_are_tried(hub_server, push):
    hub_server.accounts["hf_write"] = Account("alice", "read", is_described=False)
    status, output = push()
    assert status == 1
    assert "the token has no right to do this" in output


# ---------------------------------------------------------------- a failed upload


def test_a_repo_created_for_a_failed_upload_is_deleted(hub_server, push):
    hub_server.fail(COMMIT, Fault(status=500, times=ALWAYS))
    status, output = push("--private")
    assert status == 1
    assert "try again later. The new repo alice/tiny-lora was deleted again." in output
    assert not hub_server.repos


def test_a_repo_that_was_there_before_is_not_deleted(hub_server, push):
    hub_server.add_repo("alice/tiny-lora", {".gitattributes": b""})
    hub_server.fail(COMMIT, Fault(status=500, times=ALWAYS))
    assert push()[0] == 1
    assert ("model", "alice/tiny-lora") in hub_server.repos


def test_a_new_repo_with_a_commit_of_another_is_not_deleted(hub_server, push, monkeypatch):
    def failing(info, *_):
        hub_server.add_repo(info.id, {".gitattributes": b"", "notes.txt": b"theirs"})
        raise ConnectionError("lost")

    monkeypatch.setattr(hub.client, "commit_files", failing)
    assert push()[0] == 1
    assert hub_server.repos["model", "alice/tiny-lora"].files["notes.txt"] == b"theirs"


def test_an_empty_repo_that_cannot_be_deleted_is_named(hub_server, push):
    hub_server.fail(COMMIT, Fault(status=500, times=ALWAYS))
    hub_server.fail(r"DELETE", Fault(status=403, times=ALWAYS))
    status, output = push()
    assert status == 1
    assert "delete it at" in output
    assert output.count("\n") == 2


# ---------------------------------------------------------------- the card


def test_the_card_states_only_what_is_known(hub_server, adapter, push):
    found = results.read(adapter)
    found.dataset = results.DatasetFacts("french.csv", "ab", "local", found.dataset.splits)
    found.base_model.id = "My model (v2)"
    found.write(adapter)
    assert push()[0] == 0
    card = hub_server.repos["model", "alice/tiny-lora"].files["README.md"].decode()
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    for key in ("language", "license", "base_model", "base_model_relation", "datasets"):
        assert f"\n{key}:" not in f"\n{front}"
    assert "classify texts like those of french.csv" in body
    assert push("--language=fr", "--license=mit")[0] == 0
    assert push()[0] == 0  # what was stated stays
    card = hub_server.repos["model", "alice/tiny-lora"].files["README.md"].decode()
    assert "\nlanguage: fr\n" in card
    assert "\nlicense: mit\n" in card
    assert "classify texts in the language `fr` like those of french.csv" in card


# ---------------------------------------------------------------- names of folders


def test_folders_are_accepted_as_names_of_adapters(hub_server, adapter, monkeypatch, capsys):
    monkeypatch.chdir(adapter.parent.parent)
    written = [
        "tiny-lora",
        "tiny-lora/",
        "adapters/tiny-lora",
        "./adapters/tiny-lora/",
        "adapters\\tiny-lora",
        str(adapter),
    ]
    for text in written:
        assert train_space.main(["--push-only", text]) == 0, capsys.readouterr().err
    monkeypatch.chdir(adapter)
    assert train_space.main(["--push-only", "."]) == 0
    assert list(hub_server.repos) == [("model", "alice/tiny-lora")]


@pytest.mark.parametrize("flag", ["--push-only", "--evaluate", "--export"])
@pytest.mark.parametrize("text", ["", "tiny-loar", "adapters/none", "/", ".."])
def test_a_folder_that_is_not_an_adapter_is_refused(hub_server, adapter, monkeypatch, capsys, flag, text):
    monkeypatch.chdir(adapter.parent.parent)
    assert train_space.main([flag, text]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert not hub_server.repos


def test_evaluate_and_export_accept_a_folder(adapter, monkeypatch):
    from adapter_arena.train import commands

    monkeypatch.chdir(adapter.parent.parent)
    seen = []
    monkeypatch.setattr(
        commands.run, "measure_again", lambda name, _, parent, __: seen.append((name, parent)) or adapter
    )
    assert train_space.main(["--evaluate", "adapters/tiny-lora/", "--dataset=sample"]) == 0
    [(name, parent)] = seen
    assert (name, parent.resolve()) == ("tiny-lora", adapter.parent)
    targets = []
    monkeypatch.setattr(
        commands.store, "read_with_base", lambda *_: (SimpleNamespace(takes_pairs=False, scale=None), None)
    )
    monkeypatch.setattr(commands.exporting, "write", lambda _, __, target, ___: targets.append(target) or target)
    monkeypatch.setattr(commands.parity, "largest_difference", lambda *_: 0.0)
    for text in ("adapters/tiny-lora/", str(adapter), "adapters\\tiny-lora"):
        assert train_space.main(["--export", text]) == 0
    assert {str(target) for target in targets} == {"exports/tiny-lora"}


# ---------------------------------------------------------------- Spaces


def test_a_public_space_is_not_used_for_a_private_one(hub_server):
    hub_server.add_repo("alice/arena", {"README.md": b""}, repo_type="space")
    with pytest.raises(HubError, match="is public"):
        deploy.deploy_space("alice/arena", private=True)


def test_another_app_is_not_overwritten(hub_server):
    files = {"app.py": b"mine"}
    hub_server.add_repo("alice/arena", files, repo_type="space")
    with pytest.raises(HubError, match="this project did not write"):
        deploy.deploy_space("alice/arena")
    assert hub_server.repos["space", "alice/arena"].files == files


def test_a_token_for_one_space_deploys_it(hub_server):
    deploy.deploy_space("alice/arena")
    hub_server.accounts["hf_write"] = scoped(space__alice__arena=WRITE)
    assert deploy.deploy_space("alice/arena")
