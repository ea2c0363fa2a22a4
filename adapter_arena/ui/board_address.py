"""The view of the leaderboard in the page's address: a parameter for each control, and the scripts that write them."""

import json
from collections.abc import Mapping

PREFIX = "board_"
"""Of the leaderboard's parameters; the others belong to other tabs."""
CONTROLS = ("task", "data", "base", "method", "search", "columns", "x", "y", "curve")
"""Parameters that are read here. board.js reads board_sort, and the search again."""

# Write one control's value into the address as soon as it is changed.
_REMEMBER = """(value) => {
  const url = new URL(window.location);
  url.searchParams.set(NAME, value);
  history.replaceState(history.state, '', url);
}"""
# Write all values into the address, and copy the address without the parameters of other tabs.
_COPY = """async (...values) => {
  const url = new URL(window.location);
  NAMES.forEach((name, index) => url.searchParams.set(name, values[index]));
  history.replaceState(history.state, '', url);
  for (const name of [...url.searchParams.keys()]) {
    if (!name.startsWith(PREFIX)) url.searchParams.delete(name);
  }
  try {
    await navigator.clipboard.writeText(url.href);
    return 'Copied';
  } catch {
    return 'See address bar';
  }
}"""
AFTER_COPY = "() => new Promise((resolve) => setTimeout(() => resolve('Copy link'), 1500))"
"""Script that returns the button's own label after a moment."""


def remember_script(control: str) -> str:
    """Return the script that keeps a control's value in the address; a list is joined with commas."""
    return _REMEMBER.replace("NAME", json.dumps(PREFIX + control))


def copy_script() -> str:
    """Return the script of Copy link, whose arguments are the values of CONTROLS; it returns the button's new label."""
    names = [PREFIX + control for control in CONTROLS]
    return _COPY.replace("NAMES", json.dumps(names)).replace("PREFIX", json.dumps(PREFIX))


def read(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the controls that the address has."""
    found = {}
    for control in CONTROLS:
        if PREFIX + control in parameters:
            found[control] = parameters[PREFIX + control]
    return found


def names_view(parameters: Mapping[str, str]) -> bool:
    """Return whether the address is that of a view of the leaderboard."""
    return any(name.startswith(PREFIX) for name in parameters)
