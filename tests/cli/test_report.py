"""`lth report`: the page, what stands in it, and how it behaves in a browser."""

import csv
import html
import json
import os
import re
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory, lth_in, small):
    """Two seeds with controls in a sweep, a run with an analysis, one of another rate, and what is no run."""
    folder = tmp_path_factory.mktemp("report")
    shared = ("prune", *small, "pruning.rounds=2", "controls.kinds=[reinit]")
    assert lth_in(folder, *shared, "-m", "name=t", "seed=0,1").code == 0
    assert lth_in(folder, *shared, "name=</script><b>", "optimizer.lr=1e-2").code == 2  # no name of a run
    assert lth_in(folder, *shared, "name=fast", "optimizer.lr=1e-2").code == 0
    assert lth_in(folder, "tag", "fast", "--note", "</script><script>alert(1)</script>").code == 0
    assert lth_in(folder, "analyze", "fast", "analysis=masks", "analysis.rounds=[1,2]").code == 0
    (folder / "runs" / "foreign").mkdir()
    (folder / "runs" / "broken").mkdir()
    (folder / "runs" / "broken" / "run.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def page(folder, lth_in):
    done = lth_in(folder, "report", "--sweep", "t", "fast", "foreign", "broken", "nowhere")
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["Written: report.html"]
    for reason in ("foreign", "broken", "nowhere"):
        assert reason in done.err
    return folder / "report.html"


def test_the_page_says_what_there_is(page):
    text = html.unescape(page.read_text())
    for words in (
        "reinit",
        "A optimizer.lr=0.005",
        "B optimizer.lr=0.01",
        "mean ± standard deviation over seeds 0, 1",
        "learning curves: optimizer.lr=0.005, ticket",
        "fc_layers.1.weight",
        "masks-",
        "Other than in the defaults:",
        "dataset.subset.fraction",
        "whole config",
        "repeatable",
        "Left out: ",
    ):
        assert words in text, words


def test_the_page_needs_nothing_and_runs_nothing_of_a_run(page):
    text = page.read_text()
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", text)
    assert "<script>alert" not in text
    assert len(re.findall(r"<script", text)) == 2
    policy = re.search(r"Content-Security-Policy\" content=\"([^\"]+)", text)[1]
    assert policy.startswith("default-src 'none'") and "unsafe" not in html.unescape(policy)


def test_charts_hold_the_results(page, folder):
    data = json.loads(re.search(r"id=\"data\">(.*?)</script>", page.read_text())[1])
    ticket = data[0]["curves"][0]
    rows = [
        list(csv.DictReader((folder / "runs" / f"t-seed_{seed}" / "results.csv").open())) for seed in (0, 1)
    ]
    means = [50 * sum(float(one["test_accuracy"]) for one in both) for both in zip(*rows, strict=True)]
    assert [place["mean"] for place in ticket["places"]] == pytest.approx(means)
    assert [place["x"] for place in ticket["places"]] == pytest.approx([100, 80.0, 63.97], abs=0.01)
    assert all(place["runs"] == 2 for place in ticket["places"])
    learning = [chart for chart in data if chart["x"] == "step"]
    assert [chart["title"].rpartition(", ")[2] for chart in learning] == ["ticket", "reinit"] * 2
    assert [curve["places"][-1]["x"] for curve in learning[0]["curves"]] == [16.0] * 3


def test_the_same_runs_give_the_same_bytes_and_a_report_replaces_a_report(page, folder, lth_in):
    before = page.read_bytes()
    again = lth_in(folder, "report", "--sweep", "t", "fast", "foreign", "broken", "nowhere")
    assert again.code == 0
    assert page.read_bytes() == before


def test_figures_for_a_paper(folder, lth_in, tmp_path):
    words = (
        "report",
        "t-seed_0",
        "t-seed_1",
        "-o",
        str(tmp_path / "a.html"),
        "--figures",
        str(tmp_path / "paper"),
    )
    done = lth_in(
        folder, *words, "--format", "pdf,png", "--size", "3.3x2.4", "--font-size", "8", "--metric", "loss"
    )
    assert done.code == 0, done.err
    found = {path.name for path in (tmp_path / "paper").iterdir()}
    stems = {"loss", "learning-ticket", "learning-reinit", "layers"}
    assert found == {f"{stem}.{ending}" for stem in stems for ending in ("pdf", "png", "csv")}
    assert (tmp_path / "paper/loss.pdf").read_bytes().startswith(b"%PDF")
    width, height = (
        int.from_bytes((tmp_path / "paper/loss.png").read_bytes()[place : place + 4], "big")
        for place in (16, 20)
    )
    assert (width, height) == (495, 360)
    rows = list(csv.DictReader((tmp_path / "paper/loss.csv").open()))
    assert [row["curve"] for row in rows] == ["ticket"] * 3 + ["reinit"] * 2
    assert set(rows[0]) == {"curve", "weights remaining (%)", "test loss", "spread", "runs"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "name at least one run"),
        (("nowhere",), 1, "nowhere"),
        (("fast", "-o", "deep/a.html"), 2, "deep is no folder"),
        (("fast", "-o", "other.html"), 2, "no report of lth"),
        (("fast", "--metric", "f1"), 2, "fast has accuracy, loss"),
        (("fast", "--size", "3"), 2, "WIDTHxHEIGHT"),
        (("fast", "--format", "gif"), 2, "png, svg, pdf"),
        (("--sweep", "none"), 2, "none"),
    ],
)
def test_what_cannot_be_shown_is_said_and_nothing_written(folder, lth_in, words, code, message):
    (folder / "other.html").write_text("mine")
    before = sorted(folder.rglob("*.html"))
    done = lth_in(folder, "report", *words)
    assert (done.code, message in done.err) == (code, True), done.err
    assert sorted(folder.rglob("*.html")) == before
    assert (folder / "other.html").read_text() == "mine"


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium; `.ci/run` installs it and sets LTH_BROWSER_REQUIRED."""
    places = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if not os.environ.get("LTH_BROWSER_REQUIRED"):
        pytest.importorskip("selenium")
        if None in places.values():
            pytest.skip("there is no chromium and chromedriver here")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = places["chromium"]
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=900,900",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(places["chromedriver"]))
    yield driver
    driver.quit()


def test_in_a_browser(browser, page, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    browser.get(page.as_uri())
    figures = browser.find_elements(By.CSS_SELECTOR, "figure[data-chart]")
    assert len(figures) == len(json.loads(re.search(r"id=\"data\">(.*?)</script>", page.read_text())[1]))
    first = figures[0]

    def drawn():
        return len(first.find_elements(By.CSS_SELECTOR, ".curve"))

    assert drawn() == 4
    series = first.find_elements(By.CSS_SELECTOR, "button[aria-pressed]")
    series[1].click()
    assert (drawn(), series[1].get_attribute("aria-pressed")) == (3, "false")
    series[1].click()
    assert drawn() == 4

    def ticks():
        return [one.text for one in first.find_elements(By.CSS_SELECTOR, ".tick.middle")]

    before = ticks()
    first.find_element(By.CSS_SELECTOR, ".scale").click()
    assert ticks() != before
    ActionChains(browser).move_to_element(first.find_elements(By.CSS_SELECTOR, ".curve circle")[0]).perform()
    tip = first.find_element(By.CSS_SELECTOR, ".tip")
    assert "round 0" in tip.text and "weights remaining (%): 100" in tip.text
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    wide = browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.set_window_size(400, 900)
    narrow = browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert (wide, narrow) == (True, True)
    picture = tmp_path / "page.png"
    assert browser.save_screenshot(str(picture))
    assert len(set(picture.read_bytes())) == 256 and Path(picture).stat().st_size > 5_000
