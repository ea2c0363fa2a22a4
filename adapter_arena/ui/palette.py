"""One colour for each fine-tuning method, the same in every table and chart, in the light and the dark scheme."""

_COLOURS = {
    "full": ("#6d28d9", "#a78bfa"),
    "lora": ("#0f766e", "#2dd4bf"),
    "qlora": ("#1d4ed8", "#60a5fa"),
    "ia3": ("#be123c", "#fb7185"),
    "dora": ("#4d7c0f", "#a3e635"),
    "eva": ("#b45309", "#fb923c"),
    "loraplus": ("#0369a1", "#38bdf8"),
    "ln": ("#a21caf", "#e879f9"),
    "rslora": ("#047857", "#34d399"),
    "pissa": ("#854d0e", "#facc15"),
    "adalora": ("#4338ca", "#818cf8"),
    "vera": ("#9f1239", "#fda4af"),
    "oft": ("#7c2d12", "#fdba74"),
    "prompt": ("#3f6212", "#bef264"),
}
"""The light and the dark scheme's colour by method. Each has a contrast of at least 3:1 against its background."""
_OTHER = ("#57534e", "#d6d3d1")
"""Of any other method, of baselines and of the untrained base."""


def colour(method: str | None) -> str:
    """Return the colour of a method as a CSS value."""
    return f"var(--method-{method})" if method in _COLOURS else "var(--method-other)"


def dot(method: str | None) -> str:
    """Return a small disc in the method's colour, which stands before its name; it says nothing to a screen reader."""
    return f'<span class="dot" style="background:{colour(method)}" aria-hidden="true"></span>'


def css() -> str:
    """Return the rules that define the colours."""
    light = ""
    dark = ""
    for method, (on_light, on_dark) in (_COLOURS | {"other": _OTHER}).items():
        light += f"--method-{method}:{on_light};"
        dark += f"--method-{method}:{on_dark};"
    return f":root{{{light}}}\n.dark{{{dark}}}\n"
