"""docs/tutorial.md, command by command, in a folder of its own and with a Hub of its own."""

import os
import re
import sys
import urllib.request
from contextlib import ExitStack

import pytest
from conftest import ROOT, free_port, run_process, running_process, wait_until

from adapter_arena import results
from adapter_arena.data import sample

SET_UP = ("python3 -m venv", ".venv/bin/pip", "source ", "hf auth login")


def commands() -> list[str]:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if not line.startswith(SET_UP)]


@pytest.mark.slow
def test_the_tutorial_runs(hub_server, tmp_path):
    for name in ("app.py", "train_space.py", "adapter_arena"):
        (tmp_path / name).symlink_to(ROOT / name)
    rows = sample.make(300).rename(columns={"text": "body", "label": "stars"})
    rows.to_csv(tmp_path / "reviews.csv", index=False)
    port = free_port()
    outputs = []
    settings = {"GRADIO_SERVER_PORT": str(port), "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    environment = os.environ | settings
    with ExitStack() as stack:
        for line in commands():
            command = line.replace("7860", str(port)).replace(" you/", " alice/")
            if line == "python app.py":
                stack.enter_context(running_process(command.split(), cwd=tmp_path, env=environment))
                wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
            else:
                outputs.append(run_process(command, shell=True, check=True, cwd=tmp_path, env=environment).stdout)
    everything = "\n".join(outputs)
    assert "trainable parameters" in outputs[0]
    assert results.read(tmp_path / "adapters" / "mine-lora").evaluation.n > 0
    assert (tmp_path / "comparisons" / "mine" / "report.md").is_file()
    assert '"adapter":"mine-lora"' in everything.replace(" ", "")
    assert "alice/mine-lora" in everything
    assert everything.strip().endswith("/spaces/alice/adapter-arena")


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True
