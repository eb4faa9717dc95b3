"""The page to be explored: whole in one file, its data are the analysis, and in a browser it does what it offers."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import costmodel
from costmodel.report import render
from costmodel.report.explorer import MOST_BYTES
from tests.report import chromium

EVIL = "<img src=x onerror=alert(1)>\"'&</script><script>alert(2)</script>"


class Net(nn.Module):
    """Two stages of unlike cost, a module whose name is markup, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.large = nn.Sequential(nn.Conv2d(16, 256, 3, padding=1), nn.BatchNorm2d(256), nn.ReLU())
        self.add_module(EVIL, nn.Sequential(nn.Conv2d(256, 32, 1), nn.ReLU()))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = getattr(self, EVIL)(self.large(self.small(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def analysis():
    return costmodel.analyze(Net().eval(), torch.empty(16, 3, 64, 64), hw="a100")


@pytest.fixture(scope="module")
def page(analysis):
    return render(analysis, "html")


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetches: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetches += [(name, value) for name, value in attributes if name in ("src", "href", "action")]
        if tag not in ("meta", "br", "input", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" class="data">(.*?)</script>', page, re.S).group(1))


def test_the_page_is_well_formed_fetches_nothing_and_no_name_is_markup(page):
    found = Reader(page)
    assert not found.open and not found.fetches
    assert found.tags.count("script") == 2 and "img" not in found.tags
    assert "default-src 'none'" in page and "@import" not in page


def test_its_data_are_those_of_the_analysis(analysis, page):
    data = data_of(page)
    assert sum(data["ops"]["time"]) == pytest.approx(analysis.latency, rel=1e-4)
    assert sum(data["ops"]["flops"]) == analysis.totals.flops
    assert sum(cause["seconds"] for cause in data["causes"]) == pytest.approx(analysis.latency, rel=1e-4)
    device = next(lane for lane in data["lanes"] if lane["name"] == "device")
    assert sum(end - start for start, end, *_ in device["blocks"]) == pytest.approx(analysis.timeline.busy_s, rel=1e-3)
    assert EVIL in " ".join(data["ops"]["module"])


@pytest.mark.parametrize("hw", ["i9-10940x", "mi210"])
@pytest.mark.parametrize("mode", ["eager", "compile"])
def test_every_kind_of_machine_has_a_page(analysis, hw, mode):
    assert data_of(render(analysis.at(hw=hw, mode=mode), "html"))["lanes"]


def test_the_page_of_a_very_long_model_stays_small():
    layers = [nn.Linear(8, 8) for _ in range(2500)]
    long = costmodel.analyze(nn.Sequential(*layers), torch.empty(1, 8), hw="t4")
    assert len(render(long, "html").encode()) < MOST_BYTES


# -- in a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    drive = pytest.importorskip("playwright.sync_api", reason="playwright, which drives Chromium, is not installed")
    with drive.sync_playwright() as driver:
        path = chromium.found(driver)
        if path is None:
            pytest.skip("there is no Chromium on this machine: playwright install chromium")
        found = driver.chromium.launch(executable_path=path, args=list(chromium.SWITCHES))
        yield found
        found.close()


@pytest.fixture(params=["light", "dark"])
def shown(request, browser, page, tmp_path):
    """The page in a tab, which must not have complained or fetched anything when the test is over."""
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    tab = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme=request.param)
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-ready=true]", state="attached")
    yield tab
    assert said == [] and asked == [path.as_uri()]
    tab.close()


def names(tab) -> list[str]:
    """The first cells of the table as they read, without their marks of folding."""
    return [text.strip("▾▸ \n") for text in tab.locator(".modules tbody tr td:first-child").all_inner_texts()]


def test_names_are_text_and_the_page_follows_the_scheme(shown):
    assert shown.locator("img").count() == 0
    assert any(name.startswith("<img src=x") for name in names(shown))
    dark = shown.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    light = "rgb(255, 255, 255)"
    background = "getComputedStyle(document.body).backgroundColor"
    assert (shown.evaluate(background) == light) != dark
    shown.click("#theme")
    assert (shown.evaluate(background) == light) == dark


def test_headings_sort_within_modules(shown, analysis):
    shown.click(".fold")
    top = ["small", "large", EVIL]
    assert [name for name in names(shown) if name in top] == top  # as the model runs
    by_time = {row.module.partition(".")[0]: 0.0 for row in analysis.rows()}
    for row in analysis.rows():
        by_time[row.module.partition(".")[0]] += row.latency_s
    head = shown.locator(".modules th", has_text="time").locator("button")
    head.click()
    longest = sorted(top, key=lambda name: -by_time[name])
    assert [name for name in names(shown) if name in top] == longest
    assert shown.locator(".modules th[aria-sort=descending]").inner_text().startswith("time")
    head.click()
    assert [name for name in names(shown) if name in top] == longest[::-1]
    head.click()
    assert [name for name in names(shown) if name in top] == top


def test_modules_fold_and_a_filter_finds_operators(shown):
    shown.click(".fold")
    folded = len(names(shown))
    shown.locator(".modules button[aria-label='fold large']").click()
    assert len(names(shown)) == folded + 3
    assert names(shown)[names(shown).index("large") + 1] == "0 conv2d"
    shown.click(".unfold")
    shown.check(".flat")
    assert len(names(shown)) == len(data_of(shown.content())["ops"]["name"])
    shown.fill(".filter", "large.1")
    assert names(shown) == ["large.1 batch_norm"]
    assert "1 of " in shown.inner_text(".shown")


def test_dots_causes_and_the_timeline_tell_more_when_they_are_pointed_at(shown):
    tip = shown.locator(".tip")
    shown.locator(".roofline circle").first.hover(force=True)
    assert "of its roof" in tip.inner_text() and tip.is_visible()
    shown.locator(".causes .step").first.hover()
    assert "FLOPs alone" in tip.inner_text()
    lanes = shown.locator(".lanes")
    lanes.scroll_into_view_if_needed()
    box = lanes.bounding_box()
    shown.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 10)
    assert tip.is_visible() and "from" in tip.inner_text()
    before = shown.evaluate("document.querySelector('.lanes').toDataURL()")
    shown.click(".zoom-in")
    assert shown.evaluate("document.querySelector('.lanes').toDataURL()") != before
    shown.click(".zoom-all")
    shown.mouse.move(5, 5)
    assert shown.evaluate("document.querySelector('.lanes').toDataURL()") == before


def test_a_dot_leads_to_its_operator(shown):
    shown.locator(".roofline circle").first.click(force=True)
    wanted = shown.input_value(".filter")
    assert wanted and names(shown)


def test_a_narrow_window_scrolls_the_table_and_nothing_else(shown):
    shown.set_viewport_size({"width": 420, "height": 800})
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_of_several_runs_one_is_chosen(browser, analysis, tmp_path):
    path = tmp_path / "runs.html"
    path.write_text(render([analysis, analysis.at(hw="t4"), analysis.at(hw="i9-10940x")], "html"), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-ready=true]", state="attached")
    assert tab.locator("section.run:visible").count() == 1
    lanes = []
    for number in range(3):
        tab.select_option("#run", index=number)
        section = tab.locator("section.run:visible")
        assert section.locator("circle").count() and section.locator(".modules tbody tr").count()
        lanes.append(section.locator(".tile b").first.inner_text())
    tab.select_option("#run", index=0)
    assert tab.locator("section.run:visible .tile b").first.inner_text() == lanes[0]
    assert len(set(lanes)) == 3 and said == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.close()
