# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The page in a real browser, as visitors use it."""

import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from diffscm_diffusers import ImageClassifier
from tests.app.graph_checkpoint import save_graph_checkpoint
from tests.app.helpers import CHECKPOINTS, ROOT, Server, find_browser, open_data_url, post


pytest.importorskip("gradio", reason="Gradio is not installed.")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")
# One process, so that there is one server and one browser.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
SECONDS = 90_000  # the longest to wait for anything, in ms: machines that test are busy


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    graph = tmp_path_factory.mktemp("graph") / "graph"
    save_graph_checkpoint(graph)
    server = Server({**CHECKPOINTS, "Causal graph": str(graph)}, tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser():
    path = find_browser()
    if path is None:
        pytest.skip("No Chromium is installed.")
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser):
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(SECONDS)
    yield context
    context.close()


@pytest.fixture(scope="module")
def visit(context, server):
    """The page, opened once. `visit.requests` are the addresses that it has asked for."""
    page = context.new_page()
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(server.url)
    page.wait_for_selector("#tab0-run")
    yield page
    page.close()


def choose_tab(page, number):
    page.get_by_role("tab").nth(number).click()
    page.wait_for_selector(f"#tab{number}-run", state="visible")


def choose_kind(page, number, kind):
    page.locator(f'#tab{number}-picture input[value="{kind}"]').check()


def choose_target(page, number, target):
    box = page.get_by_label("Intervention").nth(number)
    box.click()
    page.get_by_role("option", name=target, exact=True).click()


def press(page, number, button="run"):
    """Presses a button and waits for what comes of it."""
    # What was there before must not be taken for the answer.
    page.evaluate(f"document.querySelector('#tab{number}-status div[role]').textContent = 'waiting'")
    page.click(f"#tab{number}-{button}")
    page.wait_for_function(
        "id => !['waiting', 'Computing.', undefined].includes(document.querySelector(id)?.textContent)",
        arg=f"#tab{number}-status div[role]",
    )
    return page.locator(f"#tab{number}-status").inner_text()


def row(page, number, title):
    """Pictures and captions of a row of the results."""
    section = page.locator(f"#tab{number}-results section").filter(has_text=title).first
    urls = section.locator("img").evaluate_all("images => images.map(image => image.src)")
    return [open_data_url(url) for url in urls], section.locator("figcaption").all_inner_texts()


def draw_seven(page, number=0):
    choose_kind(page, number, "draw")
    page.locator(f"#tab{number}-picture .diffscm-clear").click()
    canvas = page.locator(f"#tab{number}-picture canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 80, box["y"] + 70)
    page.mouse.down()
    for x, y in ((200, 70), (150, 150), (120, 220)):
        page.mouse.move(box["x"] + x, box["y"] + y, steps=8)
    page.mouse.up()


@pytest.fixture(scope="module")
def judge():
    """Reads a digit by a network of another kind than the one that guides."""
    oracle = ImageClassifier.from_pretrained(ROOT / "checkpoints" / "diffscm-mnist-metrics" / "oracle").eval()

    def read(image: Image.Image) -> int:
        with torch.no_grad():
            return oracle(torch.from_numpy(np.array(image.convert("L")))[None, None] / 255).argmax().item()

    return read


def test_drawn_digit_is_shown_as_another(visit, judge):
    choose_tab(visit, 0)
    draw_seven(visit)
    choose_target(visit, 0, "3")
    assert press(visit, 0).startswith("Done. The digit was scaled")

    (factual,), (text,) = row(visit, 0, "Factual")
    assert factual.size == (28, 28) and judge(factual) == 7 and "reads 7" in text
    (counterfactual,), (text,) = row(visit, 0, "Counterfactual")
    assert judge(counterfactual) == 3 and "reads 3" in text
    assert len(row(visit, 0, "Difference")[0]) == 1

    sheet = visit.locator("#tab0-results a").get_attribute("href")
    assert open_data_url(sheet).width >= 300


def test_copied_code_gives_the_same_pixels(visit, monkeypatch):
    choose_tab(visit, 0)
    draw_seven(visit)
    choose_target(visit, 0, "2")
    press(visit, 0)
    visit.evaluate("navigator.clipboard.writeText = async text => { window.copied = text }")
    visit.locator("#tab0-code button").first.click()
    visit.wait_for_function("window.copied")

    monkeypatch.chdir(ROOT)
    namespace = {}
    exec(visit.evaluate("window.copied"), namespace)
    (shown,), _ = row(visit, 0, "Counterfactual")
    assert np.array_equal(namespace["images"][0], shown)


def test_truth_stands_beside_draws_of_a_printed_digit(visit):
    choose_tab(visit, 1)
    choose_kind(visit, 1, "example")
    choose_target(visit, 1, "8")
    visit.get_by_label("number input for Draws").nth(1).fill("2")
    assert press(visit, 1).startswith("Done.")

    assert len(row(visit, 1, "Mean of 2 draws")[0]) == len(row(visit, 1, "Spread")[0]) == 1
    _, (text,) = row(visit, 1, "Truth")
    assert float(text.rpartition("error ")[2]) < 0.06
    first, second = row(visit, 1, "Draw 1")[0][0], row(visit, 1, "Draw 2")[0][0]
    assert not np.array_equal(first, second)


def choose_mode(page, attribute, mode):
    name = page.get_by_text(attribute, exact=True)
    page.locator("fieldset").filter(has=name).get_by_label(mode).check()


def graph_text(page) -> str:
    return page.locator("#tab2-graph img").get_attribute("alt")


def test_graph_is_drawn_with_incoming_edges_cut(visit):
    choose_tab(visit, 2)
    assert "thickness to intensity" in graph_text(visit) and "set: thickness" in graph_text(visit)
    before = visit.locator("#tab2-graph img").get_attribute("src")
    choose_mode(visit, "intensity", "hold")
    visit.wait_for_function("!document.querySelector('#tab2-graph img').alt.includes('thickness to intensity')")
    assert "held: intensity" in graph_text(visit)
    assert visit.locator("#tab2-graph img").get_attribute("src") != before
    choose_mode(visit, "intensity", "follow")
    visit.wait_for_function("document.querySelector('#tab2-graph img').alt.includes('thickness to intensity')")


def table(page) -> dict[str, list[str]]:
    rows = page.locator("#tab2-results table tr").all()
    return {cells[0]: cells[1:] for cells in ([*row.inner_text().split("\t")] for row in rows)}


def test_intervention_on_a_graph_moves_descendants_unless_they_are_held(visit):
    choose_tab(visit, 2)
    visit.locator('#tab2-picture input[name$="-example"]').nth(4).check(force=True)
    visit.get_by_label("number input for thickness").fill("4")
    assert "Done." in press(visit, 2)
    shown = table(visit)
    column = shown["attribute"].index("counterfactual")
    assert float(shown["thickness, pixels"][column]) == 4
    assert shown["intensity, grey levels"][column] != shown["intensity, grey levels"][0]
    assert len(row(visit, 2, "Truth")[0]) == 1 and float(shown["thickness, pixels"][-1]) == 4

    choose_mode(visit, "intensity", "hold")
    press(visit, 2)
    assert table(visit)["intensity, grey levels"][column] == shown["intensity, grey levels"][0]
    choose_mode(visit, "intensity", "follow")


def test_intervention_out_of_the_data_is_warned_of(visit):
    choose_tab(visit, 2)
    choose_mode(visit, "intensity", "set")
    visit.get_by_label("number input for thickness").fill("0.6")
    visit.get_by_label("number input for intensity").fill("254")
    assert "Outside the support" in press(visit, 2)
    choose_mode(visit, "intensity", "follow")


def test_drawn_digit_has_its_attributes_read_and_swept(visit, monkeypatch):
    choose_tab(visit, 2)
    draw_seven(visit, 2)
    assert "Read off the image by the predictor" in press(visit, 2, "sweep")
    images, names = row(visit, 2, "Sweep of thickness")
    assert len(images) == 7 and names[0].startswith("thickness")

    visit.evaluate("navigator.clipboard.writeText = async text => { window.copied = text }")
    visit.evaluate("window.copied = ''")
    visit.locator("#tab2-code button").first.click()
    visit.wait_for_function("window.copied")
    namespace = {}
    exec(visit.evaluate("window.copied"), namespace)
    assert all(np.array_equal(a, b) for a, b in zip(namespace["images"][0], images, strict=True))


def png(image: Image.Image, path):
    image.save(path)
    return path


def test_bad_input_gets_a_message_and_the_next_visitor_an_answer(visit, server, tmp_path):
    choose_tab(visit, 0)
    choose_kind(visit, 0, "draw")
    visit.locator("#tab0-picture .diffscm-clear").click()
    assert "draw a digit first" in press(visit, 0)
    assert visit.locator("#tab0-status [role=alert]").count() == 1

    choose_kind(visit, 0, "upload")
    file = visit.locator("#tab0-picture input[type=file]")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 100)
    (tmp_path / "huge.png").write_bytes(b"0" * 5_000_000)
    for path, text in (
        (tmp_path / "broken.png", "cannot be opened"),
        (tmp_path / "huge.png", "at most 4 MB"),
        (png(Image.new("1", (8000, 8000)), tmp_path / "bomb.png"), "8000 x 8000"),
    ):
        file.set_input_files(path)
        visit.wait_for_function(
            "document.querySelector('#tab0-picture [data-kind=upload]').dataset.picture?.length > 5"
        )
        assert text in press(visit, 0)

    fit = visit.get_by_label("Bring drawings and files").nth(0)
    fit.uncheck()
    file.set_input_files(png(Image.new("RGB", (28, 28), "red"), tmp_path / "red.png"))
    visit.wait_for_function("document.querySelector('#tab0-picture .diffscm-preview').src.length < 2000")
    assert "got colours" in press(visit, 0)
    fit.check()

    choose_kind(visit, 0, "example")
    choose_target(visit, 0, "1")
    assert press(visit, 0) == "Done."


@pytest.mark.parametrize(
    "position, value",
    [(2, "11"), (4, "NaN"), (5, "NaN"), (4, None), (5, 1e9), (3, 2.5), (6, -1), (0, 7), (7, [])],
)
def test_values_by_the_api_are_checked(server, position, value):
    data = ["example:3", True, "4", 1, 5, 4.0, 1.0, 0]
    data[position] = value
    answer = post(f"{server.url}/gradio_api/call/tab0", data)
    assert "<figure>" not in answer and ("event: error" in answer or "expects" in answer)
    assert server.answers()


def test_uploads_and_large_requests_are_refused_and_nothing_is_kept(server, visit):
    boundary = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/gradio_api/upload", boundary, headers))
    with pytest.raises((urllib.error.HTTPError, urllib.error.URLError)):
        post(f"{server.url}/gradio_api/call/tab0", ["a" * 9_000_000])
    assert [path for path in server.files.rglob("*") if path.is_file()] == []
    assert server.answers()


def test_a_call_can_be_cancelled(visit):
    choose_tab(visit, 0)
    choose_kind(visit, 0, "example")
    choose_target(visit, 0, "all")
    visit.get_by_role("button", name="Settings").first.click()
    visit.get_by_label("number input for Steps").first.fill("50")
    visit.click("#tab0-run")
    visit.wait_for_function("document.querySelector('#tab0-results').innerText.includes('step')")
    assert press(visit, 0, "cancel") == "Cancelled."

    visit.get_by_label("number input for Steps").first.fill("10")
    choose_target(visit, 0, "1")
    assert press(visit, 0) == "Done."


def test_keyboard_is_enough(visit):
    choose_tab(visit, 0)
    visit.locator('#tab0-picture input[value="example"]').focus()
    visit.keyboard.press("ArrowLeft")
    visit.keyboard.press("ArrowLeft")
    assert visit.locator('#tab0-picture input[value="draw"]').is_checked()
    visit.locator("#tab0-picture .diffscm-clear").click()
    visit.locator('#tab0-picture input[value="draw"]').focus()
    visit.keyboard.press("Tab")
    assert visit.evaluate("document.activeElement.tagName") == "CANVAS"
    for key in [*["ArrowUp"] * 8, " ", *["ArrowDown"] * 16]:
        visit.keyboard.press(key)
    assert "Pen down at 140, 220" in visit.locator("#tab0-picture .diffscm-pen").inner_text()
    for _ in range(30):
        visit.keyboard.press("Tab")
        if visit.evaluate("document.activeElement.id") == "tab0-run":
            break
    visit.evaluate("document.querySelector('#tab0-status div[role]').textContent = 'waiting'")
    visit.keyboard.press("Enter")
    visit.wait_for_function("document.querySelector('#tab0-status').innerText.includes('Done')")
    assert "reads 1" in row(visit, 0, "Factual")[1][0]


# The lowest contrast of text with what is behind it (WCAG 2, 1.4.3), and what has no name for screen readers.
LOOK = """() => {
  const shown = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0.5) return color;
    }
    return [255, 255, 255];
  };
  const faint = [], nameless = [];
  for (const e of document.querySelectorAll("main *, .gradio-container *")) {
    const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!text || !shown(e) || e.closest(".cm-editor, footer, [disabled], script, style")) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push(`${e.className} ${e.textContent.trim().slice(0, 30)} ${ratio.toFixed(1)}`);
  }
  for (const e of document.querySelectorAll("input, button, select, textarea, canvas, img")) {
    if (!shown(e) || e.closest(".cm-editor")) continue;
    const name = e.getAttribute("aria-label") || e.alt || e.title || e.innerText?.trim() || e.labels?.[0]?.innerText
      || e.labels?.[0]?.querySelector("img")?.alt;
    if (!name) nameless.push(e.outerHTML.slice(0, 120));
  }
  return { faint, nameless, width: document.documentElement.scrollWidth };
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_narrow_screens_contrast_and_names(context, server, theme):
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{server.url}/?__theme={theme}")
    page.wait_for_selector("#tab0-run")
    choose_target(page, 0, "1")
    assert press(page, 0) == "Done."
    look = page.evaluate(LOOK)
    page.close()
    assert look == {"faint": [], "nameless": [], "width": 390}


def test_nothing_is_asked_of_other_servers(visit, server):
    assert [url for url in visit.requests if not url.startswith((server.url, "data:", "blob:"))] == []
