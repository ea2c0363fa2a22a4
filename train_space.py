"""Fine-tune an adapter and measure it: `python train_space.py --help`."""

from adapter_arena import cli, runtime
from adapter_arena.cli import main as main

if __name__ == "__main__":
    runtime.configure(parallel_tokenizers=False)
    cli.run_and_exit()
