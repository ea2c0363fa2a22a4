"""What the README says was measured is what was measured."""

import subprocess
import sys

from conftest import ROOT


def test_the_readme_has_the_table_of_the_serving_benchmark():
    run = subprocess.run(
        [sys.executable, "benchmarks/serving.py", "--table"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip().startswith("| |")
    assert run.stdout.strip() in (ROOT / "README.md").read_text(encoding="utf-8")
