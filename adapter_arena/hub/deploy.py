"""Run on Hugging Face: the app as a Space, a training as a Job.

python -m adapter_arena.hub.deploy user/space [--hardware cpu-basic] [--namespace user] [--private]
"""

import argparse
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_token

from adapter_arena import hub
from adapter_arena.errors import ArenaError, HubError, RecipeError

ROOT = Path(__file__).parent.parent.parent
_CODE = ["train_space.py", "requirements.txt", "adapter_arena/**/*"]
_SPACE = [*_CODE, "app.py", "README.md", "LICENSE", "docs/*.png", "adapters/*/*"]
_IMAGE = "python:3.12"
JOBS_REPO = "adapter-arena-jobs"
"""The private dataset repo in the user's namespace that carries code and local data to a Job."""


def space(space_id: str, hardware: str | None = None, namespace: str | None = None, private: bool = False) -> str:
    """Create or update the Space and return its URL; what it needs is uploaded in one commit. Raises ArenaError.

    It offers the adapters of `namespace` (default: the Space's owner). SPACE_HF_TOKEN, where it is
    set, becomes its secret HF_TOKEN, with which it sees private adapters; your own token stays here.
    """
    owner, _, name = space_id.partition("/")
    if not name:
        raise HubError(f"{space_id!r} is no Space id: write user/name.")
    hub.check_can_push(owner)
    secret = os.environ.get("SPACE_HF_TOKEN")
    variables = {"ARENA_NAMESPACE": namespace or owner}

    def create():
        api = hub.api()
        api.create_repo(
            space_id,
            repo_type="space",
            space_sdk="gradio",
            space_hardware=hardware,
            space_secrets=[{"key": "HF_TOKEN", "value": secret}] if secret else None,
            space_variables=[{"key": key, "value": value} for key, value in variables.items()],
            private=private or None,
            exist_ok=True,
        )
        for key, value in variables.items():  # a Space that was there already keeps its old ones otherwise
            api.add_space_variable(space_id, key, value)
        if secret:
            api.add_space_secret(space_id, "HF_TOKEN", secret)

    hub.call(f"Space {space_id} was not made", create)
    files = _files(_SPACE)
    hub.call(
        f"Space {space_id} was not uploaded",
        lambda: hub.commit_files(
            space_id, files, "Deploy", "space", lambda name: name.startswith(("adapter_arena/", "adapters/"))
        ),
    )
    return f"{hub.api().endpoint}/spaces/{space_id}"


@dataclass(frozen=True)
class Job:
    """What is submitted: a flavor of machine, the trainer's arguments, and the data that travels along."""

    flavor: str
    namespace: str
    arguments: list[str]
    data: Path | None

    def command(self, revision: str) -> list[str]:
        """The command line of the container; `revision` is the commit of the repo that carries the code."""
        steps = [
            "pip install -q 'huggingface_hub>=2.4,<3'",
            f"hf download {self.namespace}/{JOBS_REPO} --repo-type dataset --revision {revision} --local-dir arena",
            "cd arena",
            "pip install -q -r requirements.txt",
            shlex.join(["python", "train_space.py", *self.arguments]),
        ]
        return ["bash", "-c", " && ".join(steps)]

    def describe(self) -> str:
        """What `submit` does, line by line."""
        return "\n".join(
            [
                f"upload      {', '.join(_CODE)}{f', {self.data}' if self.data else ''} to dataset {self.namespace}/{JOBS_REPO} (private)",
                f"flavor      {self.flavor}",
                f"image       {_IMAGE}",
                "secrets     HF_TOKEN",
                f"command     {shlex.join(self.command('<commit>'))}",
            ]
        )


def job(flavor: str, namespace: str, argv: list[str], dataset: str | None) -> Job:
    """The Job that runs the trainer with `argv` and pushes; a local dataset is taken along. Raises RecipeError."""
    arguments = _without(argv, {"--on-jobs": 1, "--dry-run": 0, "--namespace": 1, "--push": 0, "--dataset": 1})
    data = Path(dataset) if dataset and Path(dataset).exists() else None
    if dataset and data is None and Path(dataset).suffix in {".csv", ".tsv", ".jsonl", ".parquet"}:
        raise RecipeError(f"There is no file {dataset}: check the path.")
    if dataset:
        arguments += ["--dataset", f"data/{data.resolve().name}" if data else dataset]
    return Job(flavor, namespace, [*arguments, "--push", "--namespace", namespace], data)


def _without(argv: list[str], flags: dict[str, int]) -> list[str]:
    """`argv` without those flags and the number of values each has."""
    kept, skip = [], 0
    for arg in argv:
        name, equals, _ = arg.partition("=")
        name = name.replace("_", "-") if name.startswith("--") else name
        if skip:
            skip -= 1
        elif name in flags:
            skip = 0 if equals else flags[name]
        else:
            kept.append(arg)
    return kept


def submit(it: Job) -> None:
    """Upload code and data, start the Job, print its log until it ends. Raises HubError when it does not end well."""
    repo_id = f"{it.namespace}/{JOBS_REPO}"
    api = hub.api()
    hub.call(
        f"Dataset {repo_id} was not made",
        lambda: api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True),
    )
    revision = hub.call(f"The code was not uploaded to {repo_id}", lambda: _upload(it, repo_id))
    # Never tried twice: a reply that was lost would start, and bill, a second machine.
    started = hub.call(
        "The Job was not started",
        lambda: api.run_job(
            image=_IMAGE,
            command=it.command(revision),
            flavor=it.flavor,
            secrets={"HF_TOKEN": get_token()},
            namespace=it.namespace,
        ),
        pauses=(),
    )
    print(f"job {started.id}: {started.url}", flush=True)
    hub.call("The Job's log broke off; it runs on", lambda: _follow(started.id, it.namespace))
    status = hub.call(
        "The Job's end was not seen", lambda: api.inspect_job(job_id=started.id, namespace=it.namespace)
    ).status
    if status.stage != "COMPLETED":
        raise HubError(
            f"Job {started.id} ended {status.stage}: {status.message or 'its log above says why'}; mend and submit again."
        )


def _follow(job_id: str, namespace: str) -> None:
    for line in hub.api().fetch_job_logs(job_id=job_id, namespace=namespace, follow=True):
        print(hub.hide_token(line.rstrip("\n")), flush=True)


def _upload(it: Job, repo_id: str) -> str:
    """The commit that holds the code, and the data when it is local."""
    files = _files(_CODE)
    if it.data and it.data.is_dir():
        files |= {f"data/{it.data.resolve().name}/{file.name}": file for file in it.data.iterdir() if file.is_file()}
    elif it.data:
        files[f"data/{it.data.name}"] = it.data
    return hub.commit_files(repo_id, files, "Code and data of a Job", "dataset", lambda name: name != ".gitattributes")


def _files(patterns: list[str]) -> dict[str, Path]:
    """The project's files that match, by their path in the repo; caches, hidden and half-made ones are not among them."""
    paths = [path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()]
    names = {path.relative_to(ROOT).as_posix(): path for path in paths}
    return {
        name: path
        for name, path in names.items()
        if not any(part.startswith((".", "__pycache__", "minilm-sample-")) for part in Path(name).parts)
    }


def main() -> int:
    """`make deploy`; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space_id", help="user/name of the Space")
    parser.add_argument("--hardware", help="for example cpu-basic, zero-a10g (default: the Hub's free one)")
    parser.add_argument("--namespace", help="whose adapters the Space offers (default: its owner's)")
    parser.add_argument("--private", action="store_true")
    try:
        print(space(**vars(parser.parse_args())))
    except ArenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
