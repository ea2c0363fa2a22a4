"""Values of the API's boolean parameters and of the least confidence."""

import gradio as gr
import pytest

from adapter_arena.errors import RequestError
from adapter_arena.serve.served import Prediction
from adapter_arena.ui.api import Api, boolean, share

TEXT = "a wonderful film"


class Catalogue:
    """Records how it is called."""

    def __init__(self):
        self.whole_text = []

    def predict(self, texts, adapter, whole_text, *_):
        self.whole_text.append(whole_text)
        return []


@pytest.mark.parametrize("value", [False, "false", "False", " FALSE ", "0", 0, 0.0, None])
def test_false_is_understood(value):
    assert boolean(value, "whole_text") is False


@pytest.mark.parametrize("value", [True, "true", "True", "1", 1, 1.0])
def test_true_is_understood(value):
    assert boolean(value, "whole_text") is True


@pytest.mark.parametrize("value", ["", "maybe", "2", 2, -1, 0.5, float("nan"), [], [True], {}, "x" * 1000])
def test_other_values_are_refused(value):
    with pytest.raises(gr.Error, match="whole_text must be true or false") as caught:
        boolean(value, "whole_text")
    assert len(caught.value.message) < 100


def test_both_endpoints_check_it():
    catalogue = Catalogue()
    api = Api(catalogue)
    api.predict_batch([TEXT], whole_text="false")
    assert catalogue.whole_text == [False]
    for call in (lambda: api.predict(TEXT, whole_text="no?"), lambda: api.predict_batch([TEXT], whole_text="no?")):
        with pytest.raises(gr.Error, match="whole_text"):
            call()
    assert len(catalogue.whole_text) == 1


@pytest.mark.parametrize(("value", "number"), [(0, 0), (1, 1), (0.9, 0.9), ("0.75", 0.75), (None, 0)])
def test_confidence_is_understood(value, number):
    assert share(value, "min_confidence") == number


@pytest.mark.parametrize("value", [-0.1, 1.01, 90, "high", "", True, float("nan"), [0.5], {}, 10**400])
def test_other_confidences_are_refused(value):
    with pytest.raises(gr.Error, match="min_confidence must be a number from 0 to 1"):
        share(value, "min_confidence")


class Answers:
    """Answers each text with a given confidence, and an empty one with an error."""

    def __init__(self, **confidences: float):
        self._confidences = confidences

    def predict(self, texts, *_):
        return [self._answer(text) for text in texts]

    def _answer(self, text):
        if not text:
            return RequestError("The text is empty.")
        confidence = self._confidences[text]
        return Prediction("good", confidence, {"good": confidence, "bad": 1 - confidence}, "a", 3, False)


def test_an_answer_below_the_least_confidence_is_abstained():
    api = Api(Answers(sure=0.95, unsure=0.6))
    plain = api.predict("unsure")
    assert set(plain) == {"label", "confidence", "scores", "adapter", "tokens", "truncated"}
    assert api.predict("unsure", min_confidence=0.6) == plain | {"abstained": False}
    assert api.predict("unsure", min_confidence=0.61) == plain | {"abstained": True}
    batch = api.predict_batch(["sure", "", "unsure"], min_confidence=0.9)
    assert batch[1] == {"error": "The text is empty."}
    assert [batch[0]["abstained"], batch[2]["abstained"]] == [False, True]
    assert batch[2]["label"] == "good"
    assert api.predict_batch(["unsure"]) == [plain]
