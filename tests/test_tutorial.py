"""docs/tutorial.md, command by command, in a folder of its own and with a Hub of its own."""

import os
import re
import subprocess
import sys
import time
import urllib.request

from conftest import ROOT, free_port

from peft_arena import results, sample

SET_UP = ("python3 -m venv", ".venv/bin/pip", "source ", "hf auth login")


def commands() -> list[str]:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if not line.startswith(SET_UP)]


def test_the_tutorial_runs(hub_server, tmp_path):
    for name in ("app.py", "train_space.py", "peft_arena"):
        (tmp_path / name).symlink_to(ROOT / name)
    rows = sample.make(300).rename(columns={"text": "body", "label": "stars"})
    rows.to_csv(tmp_path / "reviews.csv", index=False)
    port, said, app = free_port(), [], None
    settings = {"GRADIO_SERVER_PORT": str(port), "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    environment = os.environ | settings
    try:
        for line in commands():
            command = line.replace("7860", str(port)).replace(" you/", " alice/")
            if line == "python app.py":
                app = subprocess.Popen(command.split(), cwd=tmp_path, env=environment)
                wait_for(f"http://127.0.0.1:{port}/health")
                continue
            run = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert run.returncode == 0, (line, run.stdout, run.stderr)
            said.append(run.stdout)
    finally:
        if app:
            app.terminate()
            app.wait(20)
    everything = "\n".join(said)
    assert "trainable parameters" in said[0]
    assert results.read(tmp_path / "adapters" / "mine-lora").evaluation.n > 0
    assert (tmp_path / "comparisons" / "mine" / "report.md").is_file()
    assert '"adapter":"mine-lora"' in everything.replace(" ", "")
    assert "alice/mine-lora" in everything
    assert everything.strip().endswith("/spaces/alice/peft-arena")


def wait_for(url: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)
