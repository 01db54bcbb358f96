"""The HTML report and the documentation in a real browser: headless Chromium."""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.programs import run_here

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PHONE = 390
"""Width of a phone in CSS pixels."""
PROBE = """
{frames}
<pre id="found"></pre>
<script>
window.onload = () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const inside = frame.contentDocument;
    const body = getComputedStyle(inside.body);
    inside.querySelectorAll("details").forEach(one => one.open = true);
    const images = [...inside.images];
    images.forEach(one => one.loading = "eager");
    return {{
      page: frame.src,
      width: inside.documentElement.clientWidth,
      content: inside.documentElement.scrollWidth,
      images: images.length,
      broken: images.filter(one => !one.naturalWidth).map(one => one.src.slice(-80)),
      dark: matchMedia("(prefers-color-scheme: dark)").matches,
      text: body.color, background: body.backgroundColor}};
  }});
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>
"""
FRAME = '<iframe style="border: 0; width: {width}px; height: 800px" src="{page}"></iframe>'
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return the report of a short digits run."""
    folder = tmp_path_factory.mktemp("browser")
    run_here(
        *("fit", "--config", "digits.yaml", "--trainer.max_epochs=2", "--name=digits"),
        *("--trainer.limit_train_batches=12", "--trainer.check_val_every_n_epoch=1"),
        cwd=folder,
    )
    run_here("report", "runs/digits/version_0", cwd=folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the pages of the documentation, built as `make docs` builds them."""
    folder = tmp_path_factory.mktemp("site")
    config = Path(__file__).parents[2] / "docs/site/mkdocs.yml"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", config]
    subprocess.run([*command, "--site-dir", folder], check=True)
    # the page of a missing address needs the address of a server
    return sorted(page for page in folder.rglob("*.html") if page.name != "404.html")


def opened(pages, folder, width, *flags):
    """Return what pages are like in frames of a given width, and the messages of the console."""
    probe = folder / "probe.html"
    frames = [FRAME.format(width=width, page=page.as_uri()) for page in pages]
    probe.write_text(PROBE.format(frames="\n".join(frames)))
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
        *(f"--user-data-dir={folder / 'profile'}", "--allow-file-access-from-files", *flags),
        *("--virtual-time-budget=20000", "--dump-dom", probe.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1])), re.findall(r".*CONSOLE.*", done.stderr)


def luminance(color):
    """Return the relative luminance of a CSS color such as `rgb(28, 39, 51)`, by WCAG 2."""
    parts = [int(value) / 255 for value in re.findall(r"\d+", color)[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def assert_fits(pages, width):
    """Check that no picture is broken, and that nothing is wider than the screen."""
    for page in pages:
        assert page["broken"] == [], page
        assert page["content"] <= page["width"] <= width, page


def contrast(page):
    """Return the contrast of text and background, 1 to 21, by WCAG 2."""
    light, dark = sorted((luminance(page["background"]), luminance(page["text"])), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("width", [PHONE, 1200])
def test_the_report_fits_the_screen_and_shows_every_picture(page, tmp_path, width):
    [found], messages = opened([page], tmp_path, width)
    assert messages == []
    assert found["images"] > 10
    assert_fits([found], width)


def test_the_report_is_readable_in_dark_mode(page, tmp_path):
    [found], _ = opened([page], tmp_path, PHONE, "--force-dark-mode")
    assert found["dark"]
    assert contrast(found) > 7


@pytest.mark.parametrize("width", [PHONE, 1200])
def test_the_documentation_fits_the_screen_and_shows_every_picture(site, tmp_path, width):
    found, messages = opened(site, tmp_path, width)
    assert messages == []
    assert len(found) > 20
    assert_fits(found, width)
    assert min(map(contrast, found)) > 7
