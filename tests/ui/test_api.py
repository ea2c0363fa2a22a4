"""Values of the API's boolean parameters."""

import gradio as gr
import pytest

from adapter_arena.ui.api import Api, boolean

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
