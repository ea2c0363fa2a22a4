"""The tab Batch in a browser."""

from browsing import BOTH, choose, open_tab


def shown_texts(page) -> list[str]:
    return page.locator("#batch-rows tbody td:nth-child(2)").all_inner_texts()


@BOTH
def test_the_example_is_scored_with_one_click_and_answers_are_withheld(page):
    open_tab(page, "Batch")
    page.wait_for_selector("#batch-example table")
    page.click("#try-example")
    page.wait_for_selector("#batch-rows table")
    assert "12 rows scored" in page.inner_text("#batch-said")
    assert "Answers 100.0 % of the texts at" in page.inner_text("#coverage")
    assert page.locator("#labelled .confusion td.right").count() == 2
    shares = page.locator("#batch-rows .share").all_inner_texts()
    confidences = [float(share.split()[0]) for share in shares]
    assert confidences == sorted(confidences)
    page.fill("#min-confidence input[type=number]", "0.9")
    page.locator("#min-confidence input[type=number]").blur()
    page.wait_for_selector("#coverage >> text=abstained")
    withheld = sum(confidence < 90 for confidence in confidences)
    assert f"{withheld} abstained" in page.inner_text("#coverage")
    assert page.inner_text("#batch-rows").count("abstained") == withheld


def test_a_labelled_file_is_scored_sorted_and_saved(page, tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text(
        "id,review,sentiment\n"
        '1,"Wonderful, I loved it.",positive\n'
        "2,A terrible bore.,positive\n"
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
    assert "66.67 %" in page.inner_text("#labelled")
    assert "<b>Dreadful</b>" in page.inner_text("#batch-rows")
    page.wait_for_selector("#histogram svg.marks")
    choose(page, "#batch-order", "Order of the file")
    page.wait_for_function("document.querySelector('#batch-rows tbody td').innerText === '1'")
    page.locator("#only-mistakes input").check()
    page.wait_for_function("document.querySelectorAll('#batch-rows tbody tr').length === 1")
    assert shown_texts(page) == ["A terrible bore."]
    with page.expect_download() as download:
        page.click("#as-csv")
    assert download.value.path().read_text().count("\n") == 4


def test_batch_of_pasted_lines(page):
    open_tab(page, "Batch")
    page.fill("#lines textarea", "A joy.\n\nAwful, simply awful.")
    page.locator("#lines textarea").blur()
    page.wait_for_selector("text=2 rows")
    page.wait_for_selector("#batch-example", state="hidden")
    page.click("#score")
    page.wait_for_selector("#batch-rows table")
    assert "negative" in page.inner_text("#batch-rows")
    assert not page.locator("#only-mistakes").is_visible()


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
