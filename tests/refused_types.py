"""Model types that have a text classifier in transformers and are not supported, besides those in `inspect.REFUSED`."""

NOT_BUILT = {
    "cohere_compass_text": "transformers cannot build its default config",
}
"""Types of which no tiny model can be made here, and why."""
REFUSED_BY_TREE = {
    **dict.fromkeys(
        ["axk1", "axk2", "deepseek_v2", "deepseek_v3", "gpt_oss", "hunyuan_v1_moe", "jamba", "jetmoe", "minimax",
         "mistral4", "mixtral", "phimoe", "qwen2_moe", "qwen3_moe", "qwen3_next"],
        "a mixture of experts",
    ),
    **dict.fromkeys(["falcon", "ibert", "squeezebert"], "no linear layers of PyTorch's own class"),
    **dict.fromkeys(["gemma3", "modernvbert", "qwen3_5", "t5gemma2", "ultravbert"], "reads images or sound"),
    "perceiver": "0 layers with one output for each label",
}  # fmt: skip
"""Types that are refused by what their config or module tree has, with a part of the reason."""
