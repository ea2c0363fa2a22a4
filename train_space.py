"""Fine-tune an adapter and measure it: `python train_space.py --help`."""

from adapter_arena import cli
from adapter_arena.cli import main as main

try:
    from adapter_arena import runtime
except ImportError:  # alias
    runtime = None  # alias

if __name__ == "__main__":
    if runtime:  # alias
        runtime.configure(parallel_tokenizers=False)
    cli.run_and_exit()
