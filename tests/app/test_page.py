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
from diffscm_diffusers.app.drawing import to_data_url
from tests.app.graph_checkpoint import save_graph_checkpoint
from tests.app.helpers import CHECKPOINTS, ROOT, Server, find_browser, needs_gradio, open_data_url, post


playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")
# One process, so that there is one server and one browser.
pytestmark = [pytest.mark.slow, needs_gradio, pytest.mark.xdist_group("browser")]
SECONDS = 90_000  # the longest to wait for anything, in ms: machines that test are busy


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    graph = tmp_path_factory.mktemp("graph") / "graph"
    save_graph_checkpoint(graph)
    # The shipped graph has no predictor, and this one no good networks. With it, there are as many tabs as can be.
    server = Server.of({**CHECKPOINTS, "With a code": str(graph)}, tmp_path_factory.mktemp("server"))
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
    title = [*CHECKPOINTS, "With a code"][number]
    tab = page.get_by_role("tab", name=title)
    if tab.count() == 0:  # on a narrow screen
        page.get_by_role("button", name="More tabs").click()
        tab = page.get_by_role("button", name=title)
    tab.click()
    page.wait_for_selector(f"#tab{number}-run", state="visible")


def choose_kind(page, number, kind):
    page.locator(f'#tab{number}-picture input[value="{kind}"]').check()


def choose(page, label, option):
    """Chooses from the list of that label on the tab that is shown."""
    page.get_by_label(label).filter(visible=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def choose_target(page, target):
    choose(page, "Intervention", target)


def fill(page, label, value):
    """Fills the number beside the slider of that label on the tab that is shown."""
    page.get_by_label(f"number input for {label}").filter(visible=True).fill(value)


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


def test_server_starts_and_answers_fast(server, visit):
    """By its processor time: how long a visitor waits depends on what else the machine does."""
    choose_tab(visit, 0)
    draw_seven(visit)
    choose_target(visit, "3")
    press(visit, 0)  # the networks are loaded
    before = server.seconds()
    press(visit, 0)
    call = server.seconds() - before
    print(
        f"\n{server.seconds_to_start:.1f} s until the server answers, {call:.1f} s for a drawn digit's counterfactual."
    )
    assert server.seconds_to_start < 15 and call < 3


def test_drawn_digit_is_shown_as_another(visit, judge):
    choose_tab(visit, 0)
    draw_seven(visit)
    choose_target(visit, "3")
    assert press(visit, 0).startswith("Done. The digit was scaled")

    (factual,), (text,) = row(visit, 0, "Factual")
    assert factual.size == (28, 28) and judge(factual) == 7 and "reads 7" in text
    (counterfactual,), (text,) = row(visit, 0, "Counterfactual")
    assert judge(counterfactual) == 3 and "reads 3" in text
    assert len(row(visit, 0, "Difference")[0]) == 1

    sheet = visit.locator("#tab0-results a").get_attribute("href")
    assert open_data_url(sheet).width >= 300


def copied_images(page, number, monkeypatch):
    """Presses "copy", runs what was copied, and returns its images."""
    page.evaluate("navigator.clipboard.writeText = async text => { window.copied = text }")
    page.evaluate("window.copied = ''")
    page.locator(f"#tab{number}-code button").first.click()
    page.wait_for_function("window.copied")
    monkeypatch.chdir(ROOT)
    namespace = {}
    exec(page.evaluate("window.copied"), namespace)
    return namespace["images"]


def test_copied_code_gives_the_same_pixels(visit, monkeypatch):
    choose_tab(visit, 0)
    draw_seven(visit)
    choose_target(visit, "2")
    press(visit, 0)
    (shown,), _ = row(visit, 0, "Counterfactual")
    assert np.array_equal(copied_images(visit, 0, monkeypatch)[0], shown)

    fill(visit, "Draws", "2")
    press(visit, 0)
    draws = [row(visit, 0, f"Draw {i}")[0] for i in (1, 2)]
    assert np.array_equal(copied_images(visit, 0, monkeypatch), draws) and not np.array_equal(*draws)
    fill(visit, "Draws", "1")


def test_truth_stands_beside_draws_of_a_printed_digit(visit):
    choose_tab(visit, 1)
    choose_kind(visit, 1, "example")
    choose_target(visit, "8")
    fill(visit, "Draws", "2")
    assert press(visit, 1).startswith("Done.")

    assert len(row(visit, 1, "Mean of 2 draws")[0]) == len(row(visit, 1, "Spread")[0]) == 1
    _, (text,) = row(visit, 1, "Truth")
    assert float(text.rpartition("error ")[2]) < 0.06
    first, second = row(visit, 1, "Draw 1")[0][0], row(visit, 1, "Draw 2")[0][0]
    assert not np.array_equal(first, second)


def choose_mode(page, attribute, mode):
    name = page.get_by_text(attribute, exact=True)
    page.locator("fieldset").filter(has=name, visible=True).get_by_label(mode).check()


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
    choose_mode(visit, "intensity", "leave")
    visit.wait_for_function("document.querySelector('#tab2-graph img').alt.includes('thickness to intensity')")


def table(page) -> dict[str, dict[str, str]]:
    """Attribute to column to text."""
    head, *rows = [row.inner_text().split("\t") for row in page.locator("#tab2-results table tr").all()]
    return {cells[0]: dict(zip(head[1:], cells[1:], strict=True)) for cells in rows}


def test_intervention_on_a_graph_moves_descendants_unless_they_are_held(visit):
    choose_tab(visit, 2)
    visit.locator('#tab2-picture input[name$="-example"]').nth(4).check(force=True)
    fill(visit, "do(thickness", "3.2")
    assert press(visit, 2) == "Done."
    thickness, intensity = table(visit)["thickness, pixels"], table(visit)["intensity, grey levels"]
    assert thickness["counterfactual"] == thickness["truth"] == "3.2"
    assert abs(float(thickness["measured in the image"]) - 3.2) < 0.5
    assert float(intensity["counterfactual"]) > float(intensity["factual"]) + 40
    assert abs(float(intensity["counterfactual"]) - float(intensity["truth"])) < 2
    _, (text,) = row(visit, 2, "Truth")
    assert float(text.rpartition("error ")[2]) < 0.04

    choose_mode(visit, "intensity", "hold")
    press(visit, 2)
    held = table(visit)["intensity, grey levels"]
    assert held["factual"] == held["counterfactual"] == held["truth"]
    choose_mode(visit, "intensity", "leave")


def test_several_interventions_and_draws_on_a_graph(visit, monkeypatch):
    choose_tab(visit, 2)
    choose_mode(visit, "digit", "set")
    choose(visit, "do(digit", "0")
    fill(visit, "Draws", "2")
    assert "truth of this intervention is not known" in press(visit, 2)
    _, (text,) = row(visit, 2, "Mean of 2 draws")
    assert "do(digit = 0), do(thickness = 3.2)" in text
    assert len(row(visit, 2, "Spread")[0]) == 1
    draws = [row(visit, 2, f"Draw {i}")[0] for i in (1, 2)]
    assert np.array_equal(copied_images(visit, 2, monkeypatch), draws) and not np.array_equal(*draws)
    fill(visit, "Draws", "1")
    choose_mode(visit, "digit", "leave")


def test_intervention_out_of_the_data_is_warned_of(visit):
    choose_tab(visit, 2)
    choose_mode(visit, "intensity", "set")
    fill(visit, "do(thickness", "0.6")
    fill(visit, "do(intensity", "254")
    assert "Outside the support" in press(visit, 2)
    choose_mode(visit, "intensity", "leave")
    fill(visit, "do(thickness", "3.2")


def test_drawn_digit_is_measured_and_swept(visit, monkeypatch):
    choose_tab(visit, 2)
    draw_seven(visit, 2)
    assert "`attributes['digit']` expects one of" in press(visit, 2, "sweep")
    choose(visit, "digit of your picture", "7")
    assert "Measured in it: thickness" in press(visit, 2, "sweep")
    images, names = row(visit, 2, "Sweep of thickness")
    assert len(images) == 7 and names[0].startswith("thickness") and "intensity" in names[0]
    light = [np.asarray(image, dtype=float).mean() for image in images]
    assert light == sorted(light) and light[-1] > 3 * light[0]
    assert np.array_equal(copied_images(visit, 2, monkeypatch)[0], images)
    choose_kind(visit, 2, "example")


def test_predictor_reads_what_is_not_measured(visit):
    choose_tab(visit, 3)
    draw_seven(visit, 3)
    assert "Read off the image by the predictor: digit." in press(visit, 3)


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
    whole = png(Image.effect_noise((64, 64), 50), tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    for path, text in (
        (tmp_path / "broken.png", "cannot be opened"),
        (tmp_path / "half.png", "broken"),
        (tmp_path / "huge.png", "at most 4 MB"),
        (png(Image.new("1", (8000, 8000)), tmp_path / "bomb.png"), "8000 x 8000"),
    ):
        file.set_input_files(path)
        visit.wait_for_function(
            "document.querySelector('#tab0-picture [data-kind=upload]').dataset.picture?.length > 5"
        )
        assert text in press(visit, 0)

    fit = visit.get_by_label("Bring drawings and files").filter(visible=True)
    fit.uncheck()
    file.set_input_files(png(Image.new("RGB", (28, 28), "red"), tmp_path / "red.png"))
    visit.wait_for_function("document.querySelector('#tab0-picture .diffscm-preview').src.length < 2000")
    assert "got colours" in press(visit, 0)
    fit.check()

    choose_kind(visit, 0, "example")
    choose_target(visit, "1")
    assert press(visit, 0) == "Done."


CLASS_CALL = ["example:3", True, "4", 1, 5, 4.0, 1.0, 0]
GRAPH_CALL = ["example:3", True, 1, 5, 1.0, 0, None, "leave", "set", "leave", "0", 3.0, 200]
SWEEP_CALL = ["example:3", True, "thickness", *GRAPH_CALL[3:]]
EMPTY = to_data_url(Image.new("RGBA", (280, 280)))


@pytest.mark.parametrize(
    "name, call, position, value",
    [
        *(
            ("tab0", CLASS_CALL, *wrong)
            for wrong in [
                (2, "11"),
                (4, "NaN"),
                (4, None),
                (5, "NaN"),
                (5, 1e9),
                (3, 2.5),
                (6, -1),
                (7, []),
                (7, "NaN"),
            ]
        ),
        *(
            ("tab0", CLASS_CALL, 0, picture)
            for picture in [7, None, "", EMPTY, "example:99", "data:image/png;base64,AA"]
        ),
        *(
            ("tab2", GRAPH_CALL, *wrong)
            for wrong in [(11, "NaN"), (11, 9), (11, None), (8, "burn"), (2, 9), (4, "NaN"), (0, EMPTY), (3, {})]
        ),
        *(("tab2_sweep", SWEEP_CALL, *wrong) for wrong in [(2, "colour"), (2, None), (0, EMPTY), (4, "NaN")]),
    ],
)
def test_values_by_the_api_are_checked(server, name, call, position, value):
    data = [*call]
    data[position] = value
    answer = post(f"{server.url}/gradio_api/call/{name}", data)
    assert "<figure>" not in answer and ("event: error" in answer or "expects" in answer)


def test_not_a_number_by_the_api_is_refused(server):
    for name, call, position in (("tab0", CLASS_CALL, 5), ("tab2", GRAPH_CALL, 11)):
        data = [*call]
        data[position] = float("nan")  # which is not JSON, but what Python's reads
        try:
            answer = post(f"{server.url}/gradio_api/call/{name}", data)
        except urllib.error.HTTPError as error:
            answer = f"event: error {error.code}"
        assert "<figure>" not in answer and ("event: error" in answer or "expects" in answer)
    assert "<figure>" in post(f"{server.url}/gradio_api/call/tab0", CLASS_CALL)
    assert "<figure>" in post(f"{server.url}/gradio_api/call/tab2", GRAPH_CALL)
    assert "<figure>" in post(f"{server.url}/gradio_api/call/tab2_sweep", SWEEP_CALL)


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
    choose_target(visit, "all")
    visit.get_by_role("button", name="Settings").first.click()
    fill(visit, "Steps", "50")
    visit.click("#tab0-run")
    visit.wait_for_function("document.querySelector('#tab0-results').innerText.includes('step')")
    assert press(visit, 0, "cancel") == "Cancelled."

    fill(visit, "Steps", "10")
    choose_target(visit, "1")
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


def test_keyboard_is_enough_on_the_graph_tab(visit):
    choose_tab(visit, 0)
    visit.get_by_role("tab", selected=True).focus()

    def go_to(is_there, key="Tab"):
        for _ in range(60):
            if visit.evaluate(is_there):
                return
            visit.keyboard.press(key)
        raise AssertionError(f"{is_there} was not reached.")

    go_to("document.activeElement.textContent.trim() == 'Causal graph'")
    visit.keyboard.press("Enter")
    visit.wait_for_selector("#tab2-run", state="visible")
    go_to("document.activeElement.name == 'tab2-example'")
    visit.keyboard.press("ArrowRight")
    go_to(
        "document.activeElement.value == 'hold' && "
        "document.activeElement.closest('fieldset').innerText.startsWith('intensity')"
    )
    visit.keyboard.press("Space")
    visit.wait_for_function("document.querySelector('#tab2-graph img').alt.includes('held: intensity')")
    go_to("document.activeElement.id == 'tab2-run'")
    visit.evaluate("document.querySelector('#tab2-status div[role]').textContent = 'waiting'")
    visit.keyboard.press("Enter")
    visit.wait_for_function("document.querySelector('#tab2-status').innerText.includes('Done')")
    assert (
        table(visit)["intensity, grey levels"]["counterfactual"] == table(visit)["intensity, grey levels"]["factual"]
    )
    choose_mode(visit, "intensity", "leave")


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
    if (!text || !shown(e) || e.closest("footer, [disabled], script, style")) continue;
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


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_narrow_screens_contrast_and_names(context, server, theme, number):
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{server.url}/?__theme={theme}")
    page.wait_for_selector("#tab0-run")
    choose_tab(page, number)
    page.get_by_role("button", name="Settings").filter(visible=True).click()
    if number == 0:
        choose_target(page, "1")
    else:
        fill(page, "do(thickness", "7")  # which is warned of
    assert press(page, number).startswith("Done.")
    looks = [page.evaluate(LOOK)]
    for kind in ("draw", "upload"):
        choose_kind(page, number, kind)
        looks.append(page.evaluate(LOOK))
    page.locator(f"#tab{number}-picture .diffscm-preview").wait_for(state="hidden")
    press(page, number)
    assert page.locator(f"#tab{number}-status [role=alert]").count() == 1
    looks.append(page.evaluate(LOOK))
    page.close()
    assert looks == [{"faint": [], "nameless": [], "width": 390}] * 4


def test_nothing_is_asked_of_other_servers(visit, server):
    assert [url for url in visit.requests if not url.startswith((server.url, "data:", "blob:"))] == []
