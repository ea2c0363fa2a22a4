"""Benchmarks run on an emulated older kind of CPU, and store the results by kind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture
def cpu(monkeypatch):
    """benchmarks/cpu.py on a CPU that is not emulated."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.delenv("OLDER_CPU", raising=False)
    import cpu

    return cpu


@pytest.fixture
def library(cpu, tmp_path):
    """The library that hides instructions of the CPU."""
    library = cpu.build(tmp_path)
    if library is None:
        pytest.skip("needs a C compiler, and a CPU and a kernel that can make CPUID fault")
    return library


RESTRICTING = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
REPORT = """
import json, torch
has = [name for name, value in torch.cpu.get_capabilities().items() if value is True]
report = {"has": has, "capability": torch.backends.cpu.get_cpu_capability()}
"""
RESTART = """
import os, cpu
cpu.become("avx2")
library = os.environ["LD_PRELOAD"].split()[0]
"""


def run(code: str, **variables: str) -> subprocess.CompletedProcess:
    """Run Python code with these environment variables, and without restrictions of the instructions."""
    environment = {name: value for name, value in os.environ.items() if name not in RESTRICTING}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    environment |= {"PYTHONFAULTHANDLER": "", "ARENA_COMPUTE": "auto"} | variables
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def instructions(report: dict, *parts: str) -> list[str]:
    """Return the reported instructions whose names contain one of the parts."""
    return [name for name in report["has"] if any(part in name for part in parts)]


def test_a_script_restarts_on_an_emulated_older_cpu(cpu, library):
    if cpu.kind_of_this_machine() not in ("bf16", "avx512"):
        pytest.skip("the machine's CPU is not of a newer kind")
    done = run(RESTART + REPORT + "print(json.dumps(report | cpu.facts() | {'library': library}))")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["capability"] == "AVX2"
    assert instructions(report, "avx512", "bf16", "amx") == []
    assert report["emulated"] == "cpuid"
    assert report["compute"] == "fp32"  # bf16 takes five times as long there
    assert not Path(report["library"]).parent.exists()


def test_avx512_without_bf16_is_emulated(cpu, library):
    if cpu.kind_of_this_machine() != "bf16":
        pytest.skip("the machine's CPU has no bf16 to hide")
    done = run(REPORT + "print(json.dumps(report))", OLDER_CPU="avx512", LD_PRELOAD=str(library))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["capability"] == "AVX512"
    assert "avx512_vnni" in report["has"]
    assert instructions(report, "bf16", "fp16", "amx") == []


def test_without_a_c_compiler_variables_restrict_pytorch(cpu, monkeypatch, tmp_path):
    started = {}
    monkeypatch.setattr(cpu, "kind_of_this_machine", lambda: "bf16")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "execve", lambda program, command, environment: started.update(environment))
    monkeypatch.setenv("PATH", str(tmp_path))
    cpu.become("avx2")
    assert started["ATEN_CPU_CAPABILITY"] == "avx2"
    assert started["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    monkeypatch.setattr(os, "environ", started)
    facts = cpu.facts()
    assert facts["emulated"] == "environment"
    assert facts["left_out"] == ["ONNX Runtime", "ONNX Runtime, int8", "OpenVINO"]


@pytest.mark.parametrize(
    "fault", ["import ctypes; ctypes.string_at(8)", "import os; os.kill(os.getpid(), 11); print('alive')"]
)
def test_a_real_segmentation_fault_still_ends_the_process(library, fault):
    done = run(fault, OLDER_CPU="avx2", LD_PRELOAD=str(library))
    assert done.returncode == -signal.SIGSEGV
    assert done.stdout == ""


@pytest.mark.parametrize(("own", "wanted"), [("avx2", "avx512"), ("avx512", "bf16"), ("arm64", "avx2")])
def test_a_kind_that_the_machine_cannot_emulate_is_rejected(cpu, monkeypatch, own, wanted):
    monkeypatch.setattr(cpu, "kind_of_this_machine", lambda: own)
    with pytest.raises(SystemExit) as exit_info:
        cpu.become(wanted)
    message = exit_info.value.code
    assert message.startswith(f"error: --cpu {wanted}: ")
    assert own in message
    assert "\n" not in message


def test_measuring_one_part_again_keeps_the_other_parts_and_kinds(cpu):
    old = {"cpu": "old"}
    new = {"cpu": "new"}
    results = {
        "avx2": {"machines": {"peers": old, "load": old}, "peers": 1, "load": 2},
        "bf16": {"machines": {"peers": old}, "peers": 3},
    }
    found = cpu.updated(results, "avx2", "peers", new, peers=9)
    assert found["avx2"] == {"machines": {"peers": new, "load": old}, "peers": 9, "load": 2}
    assert found["bf16"] == {"machines": {"peers": old}, "peers": 3}
    assert list(found) == ["bf16", "avx2"]  # the order of the tables' columns
    assert cpu.updated({}, "avx512", "load", new, load=1) == {"avx512": {"machines": {"load": new}, "load": 1}}


@pytest.mark.parametrize("benchmark", ["serving", "training"])
def test_results_name_the_cpu_they_were_measured_on(cpu, benchmark):
    results = json.loads((ROOT / "benchmarks" / f"{benchmark}.json").read_text(encoding="utf-8"))
    assert results
    for kind, found in results.items():
        assert kind in cpu.TITLES
        assert "peers" in found["machines"]
        for facts in found["machines"].values():
            assert facts["emulated"] in (False, "cpuid", "environment")
            assert facts["compute"] in ("bf16", "fp32")
            assert facts["cpu"].startswith("cpu: ")
