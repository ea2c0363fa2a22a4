"""Which adapters there are, and which folders are not served."""

import html

from adapter_arena.serve.catalogue import Catalogue
from adapter_arena.ui import fragments


def render(catalogue: Catalogue) -> str:
    """Return the number of adapters by source, the last listing of the Hub, and a collapsed list of what is left out."""
    sources = [entry.source for entry in catalogue.entries]
    text = f"{sources.count('local')} local adapters, {sources.count('hub')} from the Hub"
    status = catalogue.status
    if status.reached is False:
        text += ". The Hub cannot be reached; local adapters still work."
    elif status.reached:
        text += f", listed {status.ago()}"
    return f'<div class="statuses">{fragments.notice(text)}{_left_out(catalogue)}</div>'


def _left_out(catalogue: Catalogue) -> str:
    reasons = [*catalogue.left_out, *catalogue.status.problems]
    if not reasons:
        return ""
    folders = len(catalogue.left_out)
    parts = []
    if folders:
        parts.append("1 folder is not served" if folders == 1 else f"{folders} folders are not served")
    if catalogue.status.problems:
        parts.append(f"{len(catalogue.status.problems)} of the Hub not listed")
    items = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
    return f'<details id="left-out"><summary>{", ".join(parts)}</summary><ul>{items}</ul></details>'
