# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Makes the documentation's screenshots of the page, in `docs/images/`, from a page that is running.

    make app
    python docs/make_screenshots.py
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright


IMAGES = Path(__file__).parent / "images"
# Where the mouse draws a seven on the canvas of 280 pixels.
SEVEN = [(80, 70), (200, 70), (150, 150), (120, 220)]


def show_class(page: Page):
    page.locator('#tab0-picture input[value="draw"]').check()
    box = page.locator("#tab0-picture canvas").bounding_box()
    for i, (x, y) in enumerate(SEVEN):
        page.mouse.move(box["x"] + x, box["y"] + y, steps=8)
        if i == 0:
            page.mouse.down()
    page.mouse.up()
    page.click("#tab0-run")
    page.wait_for_selector("#tab0-results figure")


def show_graph(page: Page):
    page.get_by_role("tab", name="Causal graph").click()
    shown = page.get_by_role("button", name="Show counterfactual", exact=True)
    shown.wait_for(state="visible")
    page.locator('input[name$="-example"]:visible').nth(3).check(force=True)
    shown.click()
    page.locator(".diffscm-results table:visible").wait_for()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7860", help="Where the page is.")
    args = parser.parse_args()
    with sync_playwright() as api:
        browser = api.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, show in (("app_class", show_class), ("app_graph", show_graph)):
            page = browser.new_page(viewport={"width": 1100, "height": 900})
            page.set_default_timeout(120_000)
            page.goto(args.url)
            page.wait_for_selector("#tab0-run")
            if name == "app_graph" and page.get_by_role("tab", name="Causal graph").count() == 0:
                print("There is no checkpoint with a causal graph: no picture of one.")
                continue
            show(page)
            page.mouse.move(0, 0)
            # The box of code draws only the lines that the window shows.
            page.set_viewport_size({"width": 1100, "height": page.evaluate("document.body.scrollHeight")})
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_timeout(500)
            page.screenshot(path=IMAGES / f"{name}.png", full_page=True)
            print(f"Wrote {IMAGES / name}.png.")
        browser.close()


if __name__ == "__main__":
    main()
