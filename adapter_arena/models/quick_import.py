"""Import bitsandbytes without PyTorch's compiler, whose import takes a second and which is never used.

bitsandbytes wraps four functions of its fallback for other devices in `torch.compile`, which imports the compiler. CPU
and CUDA have kernels of their own and do not use the fallback.
"""

import torch


def _do_not_compile(function=None, **_):
    """Replace `torch.compile`, as a function or a decorator."""
    return function if function is not None else _do_not_compile


_compile = torch.compile
torch.compile = _do_not_compile
try:
    import bitsandbytes  # noqa: F401
finally:
    torch.compile = _compile
