"""The tab Train in a browser: a file becomes an adapter that the other tabs offer."""

import pytest
from browsing import BOTH, new_page, open_tab
from conftest import serve

ROWS = "".join(
    f"{'a lovely' if n % 2 else 'a dreadful'} film number {n},{'good' if n % 2 else 'bad'}\n" for n in range(90)
)


@pytest.fixture
def films(tmp_path):
    path = tmp_path / "films.csv"
    path.write_text("review,sentiment\n" + ROWS)
    return path


def start(page, films) -> None:
    """Drop the file, and start to train one epoch."""
    open_tab(page, "Train")
    page.set_input_files("#train-file input[type=file]", films)
    page.wait_for_selector("#train-read >> text=90 rows, 2 columns: 2 classes")
    assert "good" in page.inner_text("#train-read .bar >> nth=0")
    page.fill("#train-epochs input", "1")
    page.wait_for_selector("#train-plan >> text=Trained parameters")
    page.click("#train-start:enabled")


def test_a_file_becomes_an_adapter(page, films):
    start(page, films)
    page.wait_for_selector("#training-stop")
    page.reload()  # in the middle
    open_tab(page, "Train")
    page.wait_for_selector("#training-status >> text=Done in")
    page.wait_for_selector("#training-score svg.marks .mark-line path")
    page.click("#training-compare")
    page.wait_for_selector("#rows tr[data-name=films] .answer")
    open_tab(page, "Train")
    page.click("#training-card")
    page.wait_for_selector("#card >> text=films")
    open_tab(page, "Train")
    page.click("#training-delete")
    page.wait_for_selector("#train-form")
    assert "films" not in page.inner_text("#trainings")


@BOTH
def test_a_file_that_is_no_table_is_an_error(page, tmp_path):
    file = tmp_path / "empty.csv"
    file.write_text("")
    open_tab(page, "Train")
    page.set_input_files("#train-file input[type=file]", file)
    page.wait_for_selector("#train-read .error")
    assert "empty" in page.inner_text("#train-read .error")
    assert page.is_disabled("#train-start")


@pytest.mark.slow
def test_a_training_survives_the_app(browser, films, tmp_path):
    settings = {"ARENA_TRAIN_FOLDER": str(tmp_path / "trainings")}
    with new_page(browser) as page:
        with serve(**settings) as app:
            page.goto(app.url)
            start(page, films)
            page.wait_for_selector("#training-stop")
        with serve(**settings) as app:
            page.goto(app.url)
            open_tab(page, "Train")
            page.click("#trainings tr[data-name]")  # another port: the browser does not remember it
            page.wait_for_selector("#training-status >> text=Done in")
            page.click("#training-card")
            page.wait_for_selector("#card >> text=films")
