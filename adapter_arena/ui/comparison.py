"""The content of Compare for a text and a choice of adapters: the line above the table, the table, and the details."""

from dataclasses import dataclass

from adapter_arena.errors import ArenaError
from adapter_arena.serve.catalogue import UNTRAINED, Catalogue
from adapter_arena.serve.entries import Answer, Entry
from adapter_arena.serve.explain import Explanation, explain
from adapter_arena.serve.first_answers import FirstAnswers
from adapter_arena.texts import Text
from adapter_arena.ui import answers, details, fragments, scopes
from adapter_arena.ui.answers import Row, is_loaded

_NO_TEXT = fragments.notice("Type or paste a text.")
_NO_PAIR = fragments.notice("Type or paste both texts.")


@dataclass(frozen=True)
class Query:
    """The visitor's input."""

    text: str
    text_pair: str
    scope: str | None
    whole_text: bool = False


@dataclass(frozen=True)
class View:
    """The line above the table and the table, both as HTML, and the adapter whose answer is to be explained, if any."""

    summary: str
    table: str
    chosen: str | None


class Comparison:
    """Answers queries with the adapters of a catalogue."""

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue

    def members(self, scope: str | None) -> list[Entry]:
        """Return the adapters of a scope, the best first."""
        return scopes.chosen(self._catalogue.entries, scope)

    def text_of(self, query: Query) -> Text:
        """Return both texts if an adapter takes pairs: the second box is hidden otherwise, but keeps its text."""
        return _text(query, self.members(query.scope))

    def load(self, name: str) -> dict[str, str]:
        """Load an adapter, with its base model if necessary; return the reason by its name if that fails."""
        try:
            self._catalogue.engine_for(self._catalogue.find(name))
        except ArenaError as error:
            return {name: str(error)}
        return {}

    def fetch_single(self, scope: str | None) -> dict[str, str]:
        """Fetch the only adapter of a scope from the Hub, unless it needs another base model; return as `load`."""
        if not scopes.is_single(scope):
            return {}
        fetched = [entry for entry in self.members(scope) if not is_loaded(entry) and not entry.loads_base]
        return self.load(fetched[0].name) if fetched else {}

    def pending(self, scope: str | None, summary: str = "", problems: dict[str, str] | None = None) -> View:
        """Return the table without answers, which is as high as the one with answers."""
        members = self.members(scope)
        untrained = answers.untrained_pending() if self._has_untrained(members) else None
        return View(summary, answers.table(answers.rows(members, problems=problems), untrained), None)

    def answer(self, query: Query, chosen: str | None, problems: dict[str, str] | None = None) -> View:
        """Return the answers of all loaded adapters in the scope; `problems` are reasons why others have none."""
        members = self.members(query.scope)
        if not query.text.strip():
            return self.pending(query.scope, _NO_TEXT, problems)
        if not query.text_pair.strip() and members and all(entry.takes_pairs for entry in members):
            return self.pending(query.scope, _NO_PAIR, problems)
        names = [entry.name for entry in members if is_loaded(entry)]
        if not names:
            return self.pending(query.scope, problems=problems)
        try:
            found = self._catalogue.compare(_text(query, members), names, query.whole_text)
        except ArenaError as error:
            return self.pending(query.scope, fragments.notice(str(error), "error"), problems)
        reasons = {answer.error for answer in found}
        if len(reasons) == 1 and None not in reasons:  # it is the text, not the adapters
            return self.pending(query.scope, fragments.notice(reasons.pop(), "error"), problems)
        return self._view(members, found, chosen, problems)

    def first(self, query: Query, found: FirstAnswers) -> tuple[View, str]:
        """Return the view of the answers computed at the start, and the details of the row that is explained.

        Only adapters that were added since are computed.
        """
        members = self.members(query.scope)
        known = {answer.name for answer in found.answers}
        added = [entry.name for entry in members if is_loaded(entry) and entry.name not in known]
        answered = list(found.answers)
        if added:
            newer = self._catalogue.compare(_text(query, members), added)
            answered += [answer for answer in newer if answer.name not in known]
        view = self._view(members, answered, found.explained, None)
        if found.explanation is None or view.chosen != found.explained:
            return view, self.explain(query, view.chosen)
        entry = self._catalogue.find(view.chosen)
        prediction = next(answer.prediction for answer in answered if answer.name == view.chosen)
        return view, details.render(entry, answers.rows([entry])[0].title, prediction, found.explanation)

    def _view(
        self, members: list[Entry], found: list[Answer], chosen: str | None, problems: dict[str, str] | None
    ) -> View:
        rows = answers.rows(members, found, problems)
        untrained = None
        if self._has_untrained(members):
            untrained = next((answer for answer in found if answer.name == UNTRAINED), None)
        name = _row_to_explain(rows, chosen)
        return View(answers.summary(rows), answers.table(rows, untrained, name), name)

    def _has_untrained(self, members: list[Entry]) -> bool:
        """Return whether the untrained base chooses from the labels of one of these adapters."""
        loaded = [entry for entry in self._catalogue.entries if is_loaded(entry)]
        if not loaded:
            return False
        labels = loaded[0].adapter.labels  # as in Catalogue.compare
        return any(entry.adapter is not None and entry.adapter.labels == labels for entry in members)

    def explain(self, query: Query, name: str | None) -> str:
        """Return the details of an adapter's row as HTML; "" without such a row or a text."""
        entry = next((entry for entry in self.members(query.scope) if entry.name == name), None)
        if entry is None or not query.text.strip():
            return ""
        title = answers.rows([entry])[0].title
        if not is_loaded(entry):
            return details.not_loaded(entry, title)
        text = self.text_of(query)
        try:
            prediction = self._catalogue.predict([text], entry.name, query.whole_text)[0]
            if isinstance(prediction, ArenaError):
                raise prediction
        except ArenaError as error:
            return fragments.notice(str(error), "error")
        return details.render(entry, title, prediction, self._explanation(entry, text))

    def _explanation(self, entry: Entry, text: Text) -> Explanation | str:
        """Return the explanation, or why there is none: the answer is still valid."""
        try:
            return explain(self._catalogue.engine_for(entry), text, entry.name)
        except ArenaError as error:
            return str(error)


def _text(query: Query, members: list[Entry]) -> Text:
    is_pair = any(entry.takes_pairs for entry in members) and query.text_pair.strip()
    return (query.text, query.text_pair) if is_pair else query.text


def _row_to_explain(rows: list[Row], chosen: str | None) -> str | None:
    """Return the chosen row's adapter if it is in the table, else the first one with an answer."""
    if any(row.entry.name == chosen for row in rows):
        return chosen
    return next((row.entry.name for row in rows if row.prediction), None)
