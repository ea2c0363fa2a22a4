"""The old name of `export`."""

from adapter_arena.adapters.export import FORMATS, ONNX_FILE, merge, write, write_onnx  # noqa: F401  # alias
from adapter_arena.adapters.export import SERVING_COMMANDS as ENGINES  # noqa: F401  # alias
from adapter_arena.adapters.export import merge_and_unwrap as unwrapped  # noqa: F401  # alias
from adapter_arena.adapters.store import read_with_base as read  # noqa: F401  # alias
