"""What a run says of the machine it had."""

import pytest
import torch

from peft_arena import machine


@pytest.mark.parametrize(
    ("has", "said"),
    [
        ({"cpu_name": "Xeon", "avx512_bf16": True, "amx_bf16": True}, " of Xeon (amx_bf16)"),
        ({"cpu_name": "EPYC", "avx512_bf16": True}, " of EPYC (avx512_bf16)"),
        ({"cpu_name": "Old", "avx2": True}, " of Old (no bf16)"),
        ({}, ""),
    ],
)
def test_a_cpu_is_named_with_the_bf16_instructions_it_has(monkeypatch, has, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert machine.device_name() == f"cpu: {torch.get_num_threads()} cores{said}"


def test_a_cpu_is_counted_where_torch_cannot_name_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert machine.device_name() == f"cpu: {torch.get_num_threads()} cores"
