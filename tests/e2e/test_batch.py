"""The tab Batch in a browser."""

from browsing import BOTH, open_tab


@BOTH
def test_batch_scores_a_labelled_file(page, tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text(
        "id,review,sentiment\n"
        '1,"Wonderful, I loved it.",positive\n'
        "2,A terrible bore.,negative\n"
        "3,<b>Dreadful</b> acting,negative\n"
    )
    open_tab(page, "Batch")
    page.set_input_files("#file input[type=file]", file)
    page.wait_for_selector("text=3 rows, 3 columns")
    assert page.input_value("#text-column input") == "review"
    assert page.input_value("#label-column input") == "sentiment"
    page.click("#score")
    page.wait_for_selector("#batch-rows table")
    assert "3 rows scored" in page.inner_text("#batch-said")
    assert "100.00 %" in page.inner_text("#labelled")
    assert "<b>Dreadful</b>" in page.inner_text("#batch-rows")
    page.wait_for_selector("#histogram svg.marks")
    with page.expect_download() as download:
        page.click("#as-csv")
    assert download.value.path().read_text().count("\n") == 4


def test_batch_of_pasted_lines(page):
    open_tab(page, "Batch")
    page.fill("#lines textarea", "A joy.\n\nAwful, simply awful.")
    page.locator("#lines textarea").blur()
    page.wait_for_selector("text=2 rows")
    page.click("#score")
    page.wait_for_selector("#batch-rows table")
    assert "negative" in page.inner_text("#batch-rows")
    page.fill("#min-confidence input[type=number]", "1")
    page.locator("#min-confidence input[type=number]").blur()
    page.click("#score")
    page.wait_for_selector("text=2 abstained")
    assert page.inner_text("#batch-rows").count("abstained") == 2


def test_a_stopped_batch_shows_the_rows_that_are_done(page, tmp_path):
    file = tmp_path / "many.txt"
    file.write_text("A film about nothing much, told at some length and with great care for the detail.\n" * 20_000)
    open_tab(page, "Batch")
    page.set_input_files("#file input[type=file]", file)
    page.wait_for_selector("text=20,000 rows")
    page.click("#score")
    page.wait_for_selector("#batch-said .bar")
    page.click("#stop")
    page.wait_for_selector("text=Stopped:")
    page.wait_for_selector("#batch-rows table")


def test_an_empty_file_is_an_error(page, tmp_path):
    file = tmp_path / "empty.csv"
    file.write_text("")
    open_tab(page, "Batch")
    page.set_input_files("#file input[type=file]", file)
    page.wait_for_selector("#batch-said .error")
    assert "empty" in page.inner_text("#batch-said .error")
