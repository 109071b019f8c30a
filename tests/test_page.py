"""The page of verdicts: what it says, that it is one file, and that a browser shows it."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from test_claims import AHEAD, BEHIND, PUBLISHED, SOURCE, runs

from ecc.evidence import captions, claims, page, style

EXPERIMENT = {
    "name": "mobilenet",
    "network": "mobilenet_embedded",
    "dataset": "fractals",
    "platforms": ["jetson_tx2"],
    "methods": ["ecc", "uniform"],
    "seeds": [0, 1],
    "budgets": [{"reducible": 0.5}],
    "dense": {"iterations": 1500},
    "compression": {"iterations": 250},
    "finetuning": [{"iterations": 100}],
}
# What a browser loads by itself, unlike a link that a reader follows.
LOADED = re.compile(
    r"""<(?!a\b)\w+\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^\s"'>]*"""
    r"""|(?:\burl\(|@import)\s*["']?(?:https?:)?//[^\s"')]*""",
    re.IGNORECASE,
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('<a href="https://example.org">', 0),
        ("<a class='b' href='//example.org/a.png'>", 0),
        ('<img src="data:image/png;base64,iVBOR//8A"><script>let a = 1 // b</script>', 0),
        ('<svg xmlns="http://www.w3.org/2000/svg"><style>a { background: url(#b) }</style>', 0),
        ('<link rel="stylesheet" href="a.css"><script src="a.js"></script>', 0),
        ('<link rel="stylesheet" href="https://example.org/a.css">', 1),
        ("<script defer src=//example.org/a.js></script><IMG alt='' SRC='http://b'>", 2),
        ("<video src='https://example.org/a'><audio src=http://example.org/a>", 2),
        ("<style>@import 'https://a.css'; a { background: url( \"//example.org/a\") }</style>", 2),
    ],
)
def test_what_a_page_loads_from_the_network_is_told_from_its_links(text, count):
    assert len(LOADED.findall(text)) == count


def shown(path, width, user):
    """What a browser without a network makes of a page: its elements, and on stderr its console."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += [f"--window-size={width},900", f"--user-data-dir={user}", "--enable-logging=stderr"]
    flags += ["--virtual-time-budget=60000", "--dump-dom", "--host-resolver-rules=MAP * ~NOTFOUND"]
    return subprocess.run(
        [browser, *flags, f"file://{path}"], capture_output=True, text=True, timeout=120
    )


# Images are whole, tables sort, nothing is wider than the window.
PAGE = """
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) failed.push("wide " + root.scrollWidth);
  for (const image of document.images)
    if (!image.complete || !image.naturalWidth) failed.push("image " + image.alt);
  for (const table of document.querySelectorAll("table.sortable")) {
    const told = cell => cell.dataset.value ?? cell.textContent;
    const text = () => [...table.tBodies[0].rows].map(row => told(row.cells[0]));
    const before = text(), button = table.tHead.querySelector("button");
    const numbers = before.every(value => !isNaN(parseFloat(value)));
    button.click(); button.click();
    const sorted = [...before].sort((a, b) => numbers ? b - a : b.localeCompare(a));
    if (text().join() !== sorted.join()) failed.push("sort " + button.textContent);
  }
"""


# Every figure of Snakemake's report is inside and is shown, every result has a caption.
REPORT = """
  const still = "<style>* { transition: none !important; }</style>";
  document.head.insertAdjacentHTML("beforeend", still);
  const shown = () => new Promise(done => setTimeout(done, 500));
  await shown();
  for (const [path, result] of Object.entries(results)) {
    if (!result.caption.includes("In this run")) failed.push("caption " + path);
    if (result.mime_type !== "image/png") continue;
    app.setView({content: "img", contentPath: result.data_uri, resultPath: path});
    await shown();
    const image = [...document.images].find(one => one.src === result.data_uri);
    if (!image?.complete || !image.naturalWidth) failed.push("image " + path);
    const place = image?.getBoundingClientRect();
    if (place?.right > innerWidth || place?.width < 250) failed.push("wide or small " + path);
    app.showResultInfo(path);
    await shown();
    const nav = document.querySelector("nav");
    if (!nav.textContent.includes("In this run") || nav.getBoundingClientRect().width < 250)
      failed.push("no caption of " + path);
    if (document.documentElement.scrollWidth > innerWidth) failed.push("wide " + path);
  }
"""


# Before anything else of a page: the log that a browser writes tells neither the level of a line
# nor what was not loaded.
WATCH = """<script>
  window.failed = [];
  console.error = (...told) => failed.push("console " + told.join(" "));
  addEventListener("unhandledrejection", event => failed.push("rejected " + event.reason));
  addEventListener("error", ({message, target}) => {
    failed.push(message ?? "not loaded " + (target.src ?? target.href));
  }, true);
</script>"""


def probed(path, script, width, folder):
    """PASSED, or what a script that runs in a page, this wide, puts into `failed`, with all errors
    and whatever the page asks for beside its own file.

    The page is in a frame, since a window has a smallest width.
    """
    probe = f"""<script>
    const say = text => parent.postMessage(text, "*");
    addEventListener("load", async () => {{
      {script}
      await new Promise(done => setTimeout(done, 500));  // for what is still under way
      for (const asked of performance.getEntriesByType("resource"))
        failed.push("asks for " + asked.name);
      say(failed.length ? "FAILED " + failed.join("; ") : "PASSED");
    }});
    </script></body>"""
    start, head, rest = path.read_text().partition("<head>")
    before, end, after = rest.rpartition("</body>")
    assert head
    assert end
    (folder / "probed.html").write_text(start + head + WATCH + before + probe + after)
    frame = folder / "frame.html"
    frame.write_text(
        "<title>nothing was said</title><script>"
        "addEventListener('message', event => document.title = event.data)</script>"
        f"<iframe src='probed.html' style='width: {width}px; height: 900px; border: 0'></iframe>"
    )
    browser = shown(frame, 1400, folder / "user")
    title = re.search(r"<title>(.*?)</title>", browser.stdout)
    assert title, browser.stdout[:2000]
    console = [line for line in browser.stderr.splitlines() if "CONSOLE" in line]
    return "; ".join([title[1], *(line for line in console if "Uncaught" in line)])


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    drawn = []
    with style.theme():
        for name in ("figure_04", "staircase"):
            figure, axes = style.panels([name])
            axes[0].plot([0, 1], [0, 1])
            drawn.append(folder / f"{name}.png")
            style.save(figure, drawn[-1])
    listed = claims.read(SOURCE)
    frame = runs(AHEAD, BEHIND).assign(within_budget=True)
    decided = claims.decide(listed, {"accuracy_at_budget": frame}, PUBLISHED)
    decided["holds"] = [claim["holds"] for claim in listed]
    table = pd.DataFrame({"method": ["<ecc>", "uniform"], "mean": [0.91234567, float("nan")]})
    titles = {"jetson_tx2": "emulated Jetson TX2"}
    made_by = {"figure_04": "figures", "staircase": "measurements", "comparison": "tables"}
    below = {"comparison": table}
    made = pd.DataFrame(
        [("tables/comparison.csv", "tables"), ("figures/figure_04.png", "figures")],
        columns=["file", "rule"],
    ).assign(job="all", commit="abc123", hardware="cores: 2", versions="numpy: 2")
    told = {
        "figure_04": captions.Caption("**Figure 4.** Accuracy.", "ECC 0.9.", "- seeds 0, 1"),
        "comparison": captions.Caption("**Methods compared.**", "of two."),
    }
    text = page.render(decided, below, drawn, [EXPERIMENT], titles, made_by, made, told)
    (folder / "index.html").write_text(text)
    return folder / "index.html"


def test_it_says_first_what_was_run_on_what_and_how_many_claims_hold(html):
    text = html.read_text()
    head = text[text.index("<h1>") : text.index('<h2 id="claims">')]
    held = int(re.search(r"(\d+) of \d+ claims of the papers hold", head)[1])
    assert held == text.count('<td class="verdict holds">') >= 1
    for said in (
        "The devices are emulated",
        "emulated Jetson TX2",
        "1500, 250, 100",
        "budgets: 1, seeds: 2",
    ):
        assert said in head


@pytest.mark.parametrize(
    ("titles", "said", "unsaid"),
    [
        (["emulated Jetson TX2", "simulated GTX"], "No device was measured", "Not measured"),
        (["emulated Jetson TX2", "H100"], "Not measured: emulated Jetson TX2<", "No device"),
        (["H100"], "claims of the papers hold", "measured"),
    ],
)
def test_that_no_device_was_measured_is_said_where_it_is_so(titles, said, unsaid):
    decided = pd.DataFrame(columns=["verdict"])
    made = pd.DataFrame(columns=["file", "rule", "job", "commit", "hardware", "versions"])
    text = page.render(decided, {}, [], [], dict(enumerate(titles)), {}, made.astype(str), {})
    head = text[text.index("<h1>") : text.index('<ul class="tally">')]
    assert said in head
    assert unsaid not in head


def test_every_claim_is_there_with_a_verdict_and_what_would_count(html):
    text = html.read_text()
    listed = claims.read(SOURCE)
    assert all(f'<tr id="{claim["id"]}">' in text for claim in listed)
    assert text.count('<td class="verdict') == len(listed)


def test_it_is_one_file_that_asks_for_nothing(html):
    text = html.read_text()
    assert text.count("src=") == text.count('src="data:image/png;base64,') == 2
    assert "http" not in text.replace("data:", "")
    assert 'alt="Figure 4"' in text
    assert 'alt="Staircase"' in text


def test_it_says_what_made_every_figure_and_table(html):
    text = html.read_text()
    assert "Made by the code of commit abc123, on: cores: 2" in text
    assert "figures/figure_04.png and .pdf, by rule figures, commit abc123" in text
    assert "figures/staircase.png and .pdf, by rule measurements<" in text  # of which none tells
    assert "comparison.csv, 2 rows, by rule tables, commit abc123" in text
    assert "tables/accuracy_at_budget.csv, not in this run" in text


def test_captions_are_below_figures_and_above_tables(html):
    text = html.read_text()
    figure = text[text.index('<figure id="figure_04">') : text.index('<figure id="staircase">')]
    assert "<strong>Figure 4.</strong> Accuracy." in figure
    assert "<strong>In this run:</strong> ECC 0.9." in figure
    assert "<summary>Settings</summary>" in figure
    assert "<b>Staircase.</b>" in text  # which has no caption
    table = text[text.index('<details id="comparison">') :]
    assert table.index("<strong>Methods compared.</strong>") < table.index("<table")


def test_of_a_long_table_the_first_rows_are_there():
    table = page._table("long", pd.DataFrame({"row": range(page.ROWS + 1)}))
    assert (len(table["rows"]), table["count"]) == (page.ROWS, page.ROWS + 1)


def test_text_is_escaped_and_what_is_missing_is_empty(html):
    text = html.read_text()
    assert "&lt;ecc&gt;" in text
    assert "<ecc>" not in text
    assert ">0.9123</td>" in text
    assert ">nan<" not in text.lower()


@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_it_without_scrolling_sideways(html, width, tmp_path):
    assert probed(html, PAGE, width, tmp_path) == "PASSED"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<script>console.warn('no error')</script>", "PASSED"),
        ("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='>", "PASSED"),
        ("<a href='https://example.org'>to read</a>", "PASSED"),
        ("<script>console.error('of the page')</script>", "console of the page"),
        ("<script>setTimeout(() => { throw 'late' })</script>", "late"),
        ("<script>Promise.reject('no')</script>", "rejected no"),
        ("<img src='none.png'>", "not loaded .*none.png"),
        ("<script src='https://example.org/a.js'></script>", "not loaded https://example.org/a.js"),
        ("<link rel='stylesheet' href='https://example.org/a.css'>", "asks for .*a.css"),
        ("<style>body { background: url(https://example.org/a.png) }</style>", "asks for .*a.png"),
        ("<script>fetch('https://example.org/a').catch(() => 0)</script>", "asks for .*org/a"),
    ],
)
def test_an_error_on_a_page_and_what_it_asks_for_are_found(body, words, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html><html><head></head><body>{body}</body></html>")
    assert re.search(words, probed(path, "", 400, tmp_path))
