"""Import bitsandbytes without PyTorch's compiler, which takes a second of a start and is never used."""

import torch


def _leave_alone(function=None, **_):
    """Stand in for `torch.compile`, as a function or a decorator."""
    return function if function is not None else _leave_alone


# bitsandbytes has `torch.compile` wrap four functions of its fallback for devices without kernels of its own, and
# wrapping one imports the compiler. CPU and CUDA have kernels.
_compile = torch.compile
torch.compile = _leave_alone
try:
    import bitsandbytes  # noqa: F401
finally:
    torch.compile = _compile
