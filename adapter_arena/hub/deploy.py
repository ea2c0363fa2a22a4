"""Deploy the app as a Hugging Face Space.

python -m adapter_arena.hub.deploy user/space [--hardware cpu-basic] [--namespace user] [--private]
"""

import argparse
import os
import sys
from pathlib import Path

from huggingface_hub import SpaceInfo

from adapter_arena.errors import ArenaError, HubError
from adapter_arena.hub import client, rights

ROOT = Path(__file__).parent.parent.parent
SPACE_FILES = [
    "app.py",
    "train_space.py",
    "requirements.txt",
    "README.md",
    "LICENSE",
    "docs/*.png",
    "adapter_arena/**/*",
    "adapters/*/*",
]
_REPLACED = ("adapter_arena/", "adapters/")
"""Folders of the Space from which files are deleted that no longer exist here."""
_IGNORED = (".", "__pycache__", "minilm-sample-")
"""Prefixes of files and folders that are not uploaded."""


def deploy_space(
    space_id: str, hardware: str | None = None, namespace: str | None = None, private: bool = False
) -> str:
    """Create or update the Space and return its URL; its files are uploaded in one commit. Raises ArenaError.

    The Space offers the adapters of `namespace`, by default its owner. If SPACE_HF_TOKEN is set, it becomes the
    Space's secret HF_TOKEN, which gives access to private adapters; your own token is not uploaded.
    """
    owner, _, name = space_id.partition("/")
    if not name:
        raise HubError(f"{space_id!r} is not a Space id: use user/name.")
    account = rights.account()
    info = client.find_repo(space_id, "space")
    problem = rights.write_problem(account, space_id, exists=info is not None, repo_type="space")
    if problem is None and info is not None:
        problem = _space_problem(info, private)
    if problem:
        raise HubError(problem)
    client.call_with_retries(
        f"Space {space_id} was not created", lambda: _create_space(space_id, hardware, namespace or owner, private)
    )
    files = _files_to_upload()
    client.call_with_retries(f"Space {space_id} was not uploaded", lambda: _commit(space_id, files))
    return f"{client.api().endpoint}/spaces/{space_id}"


def _space_problem(info: SpaceInfo, private: bool) -> str | None:
    """Return why the app may not be deployed to an existing Space, and the next step."""
    names = {sibling.rfilename for sibling in info.siblings or []}
    if private and not info.private:
        return (
            f"Space {info.id} is public, which --private does not change: make it private in its settings, name another "
            "Space, or leave --private out."
        )
    is_ours = any(name.startswith(_REPLACED) for name in names)
    if "app.py" in names and not is_ours:
        return f"Space {info.id} has an app.py that this project did not write: name another Space."
    return None


def _commit(space_id: str, files: dict[str, Path]) -> str:
    """Replace the project's files in the Space in one commit."""
    info = client.repo_info(space_id, "space")
    existing = [sibling.rfilename for sibling in info.siblings or []]
    deleted = [name for name in existing if name.startswith(_REPLACED) and name not in files]
    return client.commit_files(info, files, "Deploy", deleted)


def _create_space(space_id: str, hardware: str | None, namespace: str, private: bool) -> None:
    api = client.api()
    token = os.environ.get("SPACE_HF_TOKEN")
    api.create_repo(
        space_id,
        repo_type="space",
        space_sdk="gradio",
        space_hardware=hardware,
        private=private or None,
        exist_ok=True,
    )
    api.add_space_variable(space_id, "ARENA_NAMESPACE", namespace)
    if token:
        api.add_space_secret(space_id, "HF_TOKEN", token)


def _files_to_upload() -> dict[str, Path]:
    """Return the project's files for the Space by their path in the repo."""
    files = {}
    for pattern in SPACE_FILES:
        for path in ROOT.glob(pattern):
            name = path.relative_to(ROOT)
            is_ignored = any(part.startswith(_IGNORED) for part in name.parts)
            if path.is_file() and not is_ignored:
                files[name.as_posix()] = path
    return files


def main() -> int:
    """Run `make deploy` and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space_id", help="user/name of the Space")
    parser.add_argument("--hardware", help="for example cpu-basic, zero-a10g (default: the Hub's free hardware)")
    parser.add_argument("--namespace", help="user whose adapters the Space offers (default: its owner)")
    parser.add_argument("--private", action="store_true")
    try:
        print(deploy_space(**vars(parser.parse_args())))
    except ArenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
