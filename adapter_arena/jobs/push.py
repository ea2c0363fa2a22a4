"""Publish an adapter that was trained on the page, with the token of whoever asks for it."""

import subprocess
import sys
from pathlib import Path

from adapter_arena import settings
from adapter_arena.errors import HubError
from adapter_arena.jobs import command
from adapter_arena.jobs.manager import TRAINER

_TIMEOUT_SECONDS = 900
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def push(adapter: Path, repo_id: str, private: bool, token: str | None) -> str:
    """Push an adapter folder and return the line that says where it is. Raises HubError.

    Without a token, that of this machine is used; on a Space this is not allowed, since it is the owner's.
    """
    if token is None and settings.is_space():
        raise HubError("Sign in with Hugging Face first: the adapter is pushed to your account.")
    environment = command.environment()
    if token is not None:
        environment = {name: value for name, value in environment.items() if name not in _TOKENS} | {"HF_TOKEN": token}
    words = [sys.executable, str(TRAINER), f"--push-only={adapter.name}", f"--output-dir={adapter.parent}"]
    if repo_id:
        words.append(f"--repo-id={repo_id}")
    if private:
        words.append("--private")
    try:
        process = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, env=environment)
    except subprocess.TimeoutExpired as error:
        raise HubError(f"The Hub did not answer in {_TIMEOUT_SECONDS // 60} minutes: try again later.") from error
    if process.returncode:
        lines = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
        raise HubError(lines[0].removeprefix("error: ") if lines else "The adapter was not pushed: try again later.")
    return process.stdout.strip().splitlines()[-1]
