"""Fast paths: attention, packed inputs, merged adapters and fused layers for CPUs, LoRA layers for training."""
