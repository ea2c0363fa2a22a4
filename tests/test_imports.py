"""What importing the package loads and changes."""

import sys

import pytest
from conftest import ROOT, run_process

WITHOUT_TORCH = ("settings", "errors", "files", "network", "runtime", "lru", "recipe", "results", "stats")


def test_modules_of_the_ground_floor_do_not_import_torch():
    imports = "\n".join(f"import adapter_arena.{name}" for name in WITHOUT_TORCH)
    code = f"{imports}\nimport sys\nassert 'torch' not in sys.modules"
    run_process([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.slow
def test_models_are_imported_without_the_backend_of_pytorchs_compiler_and_leave_the_environment_alone():
    code = """
import os, sys
before = dict(os.environ)
import adapter_arena.models.methods
assert "bitsandbytes" in sys.modules
assert "torch._inductor.compile_fx" not in sys.modules
changed = {name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name)}
assert not {name for name in changed if name.startswith(("GOMP", "ONEDNN", "TOKENIZERS", "GRADIO", "TRANSFORMERS"))}
"""
    run_process([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_configuring_keeps_what_the_user_has_set():
    code = """
import os
os.environ["GOMP_SPINCOUNT"] = "7"
from adapter_arena import runtime
runtime.configure(parallel_tokenizers=False)
assert os.environ["GOMP_SPINCOUNT"] == "7"
assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"
assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
"""
    run_process([sys.executable, "-c", code], cwd=ROOT, check=True)
