"""The name of the machine in results."""

from pathlib import Path

import pytest
import torch

from adapter_arena import machine


@pytest.mark.parametrize(
    ("has", "said"),
    [
        ({"cpu_name": "Xeon", "avx512_bf16": True, "amx_bf16": True}, " of Xeon (amx_bf16)"),
        ({"cpu_name": "EPYC", "avx512_bf16": True}, " of EPYC (avx512_bf16)"),
        ({"cpu_name": "Old", "avx2": True}, " of Old (no bf16)"),
        ({}, ""),
    ],
)
def test_a_cpu_is_named_with_its_bf16_instructions(monkeypatch, has, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(machine, "_CPUINFO", Path("/nonexistent"))
    assert machine.device_name() == f"cpu: 2 cores{said}"


@pytest.mark.parametrize(
    ("cpuinfo", "said"),
    [
        ("model name\t: AMD EPYC 9R14 96-Core Processor\ncpu family\t: 25\nmodel\t: 17\n", "AMD EPYC 9R14 96-Core Processor"),
        ("model name\t: Intel(R) Xeon(R) Platinum 8488C\n\nmodel name\t: Other 1\n", "Intel Xeon Platinum 8488C"),
        # A virtual machine may hide the number.
        ("cpu family\t: 6\nmodel\t\t: 207\nmodel name\t: Intel(R) Xeon(R) Processor\n", "Generic, family 6, model 207"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", "Generic"),
    ],
)  # fmt: skip
def test_a_cpu_has_its_model_name_on_linux(monkeypatch, tmp_path, cpuinfo, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Generic"})
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert machine.device_name() == f"cpu: 2 cores of {said} (no bf16)"


@pytest.mark.parametrize(("threads", "said"), [(1, "1 core"), (2, "2 cores")])
def test_cores_are_counted_if_torch_cannot_name_the_cpu(monkeypatch, threads, said):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert machine.device_name() == f"cpu: {said}"
