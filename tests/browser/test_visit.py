"""What a visitor does, in a real browser."""

import re

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install capsim[dev]").expect

SMALL = "/?scenario=edge-llama8b-mac&replications=1&users="
PLAIN = re.compile(r"[\d,]+")


def sessions(page):
    """The figure of the first node type."""
    return page.get_by_test_id("stMetricValue").first


def choose(page, label, option):
    page.get_by_role("combobox", name=label).first.click()
    page.get_by_role("option", name=option, exact=True).click()


def simulated(page):
    """Press Simulate, and wait until the answer is simulated."""
    page.get_by_role("button", name="Simulate", exact=True).click()
    expect(page.get_by_role("button", name="Simulate again")).to_be_visible(timeout=150_000)


def test_the_first_screen_is_full_and_a_changed_model_changes_it(visit):
    page = visit()
    expect(sessions(page)).to_have_text(PLAIN)
    before = sessions(page).inner_text()
    choose(page, "Model", "llama-3.1-8b")
    expect(sessions(page)).not_to_have_text(before)
    expect(page).to_have_url(re.compile("model=llama-3.1-8b"))


def test_a_copied_link_shows_the_same_in_another_tab(visit):
    page = visit()
    before = sessions(page).inner_text()
    choose(page, "Model", "llama-3.1-8b")
    expect(page).to_have_url(re.compile("model=llama-3.1-8b"))
    expect(sessions(page)).not_to_have_text(before)
    shown = sessions(page).inner_text()
    address = page.url.split("/", 3)[3]
    expect(sessions(visit("/" + address))).to_have_text(shown)


def test_a_simulation_is_cancelled_from_a_second_tab(visit):
    page = visit("/?replications=20")
    page.get_by_role("button", name="Simulate", exact=True).click()
    other = visit("/?replications=20")
    other.get_by_role("button", name="Cancel").click()
    for tab in (other, page):
        expect(tab.get_by_role("button", name="Simulate", exact=True)).to_be_visible(timeout=60_000)


def test_a_scenario_is_downloaded_and_opened_again(visit, tmp_path):
    page = visit("/?model=llama-3.1-8b")
    shown = sessions(page).inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="scenario.yaml").click()
    download.value.save_as(tmp_path / "scenario.yaml")
    other = visit()
    other.get_by_text("A scenario of your own").click()
    other.locator("input[type=file]").set_input_files(tmp_path / "scenario.yaml")
    other.get_by_role("button", name="Open it").click()
    expect(other).to_have_url(re.compile("scenario=uploaded-"))
    expect(sessions(other)).to_have_text(shown)


@pytest.mark.parametrize("path", ["/compare", "/sweep", "/breakeven", "/run", "/calibration", "/catalog"])
def test_every_page_stands_on_a_phone(visit, path):
    page = visit(path, width=390, height=850)
    page.wait_for_load_state("networkidle")
    assert page.get_by_test_id("stException").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.slow
def test_simulated_runs_are_found_after_a_reload_and_compared(visit):
    page = visit(SMALL)
    simulated(page)
    page.reload()
    expect(page.get_by_role("button", name="Simulate again")).to_be_visible()
    simulated(visit(SMALL + "&kv=bf16&weights=bf16"))
    other = visit("/compare")
    for _ in range(2):
        other.get_by_role("combobox", name="Runs, the base first").click()
        other.get_by_role("option").first.click()
    expect(other.get_by_text("What differs")).to_be_visible()


@pytest.mark.slow
def test_a_sweep_fills_in_and_a_point_opens_in_run(visit):
    page = visit("/sweep?scenario=agent-qwen30b-h200")
    page.get_by_role("button", name="Sweep", exact=True).click()
    chart = page.get_by_test_id("stVegaLiteChart").nth(1)
    expect(chart).to_be_visible(timeout=120_000)
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=120_000)
    chart.locator('path[aria-label*="best: best"]').first.click(force=True)
    page.get_by_role("button", name="Open this point in Run").click()
    expect(page).to_have_url(re.compile(r"/run\?run=[0-9a-f]{12}"))
    expect(page.get_by_text("TTFT").first).to_be_visible(timeout=120_000)
