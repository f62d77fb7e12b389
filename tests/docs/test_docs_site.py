"""The documentation site builds without a dead link."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import keras_dskd

for needed in ("mkdocs", "material", "mkdocstrings"):
    pytest.importorskip(needed, reason=f"the site needs {needed}")

pytestmark = pytest.mark.backend_neutral
EXAMPLES = Path(__file__).parents[2] / "examples"


class Page(HTMLParser):
    """The links of a page, and the anchors that links can point to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = set(), {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.add((tag, value))
            if name in ("id", "name") and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    built = subprocess.run(
        [*command, "-f", EXAMPLES / "mkdocs.yml", "-d", folder],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_site_has_every_page_of_the_folder(site):
    sources = [
        path.relative_to(EXAMPLES / "docs") for path in EXAMPLES.glob("docs/**/*.md")
    ]
    assert len(sources) > 10
    missing = [
        path for path in sources if not (site / path.with_suffix(".html")).exists()
    ]
    assert not missing


def test_site_has_every_page_of_tables(site):
    sources = list(EXAMPLES.glob("benchmarks/tables/*.md"))
    assert sources
    missing = [
        path.name
        for path in sources
        if not (site / "results" / path.with_suffix(".html").name).exists()
    ]
    assert not missing


def test_links_within_the_site_are_alive(site):
    pages = {path.resolve(): Page(path) for path in site.glob("**/*.html")}
    dead, checked = [], 0
    for path, page in pages.items():
        if path.name == "404.html":  # Its links are absolute.
            continue
        for _, link in page.links:
            if "://" in link or link.startswith(("mailto:", "data:")):
                continue
            checked += 1
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            is_there = target.is_file() or (target / "index.html").is_file()
            anchors = pages[target].anchors if target in pages else {anchor}
            if not is_there or anchor not in anchors:
                dead.append((str(path.relative_to(site)), link))
    assert not dead
    assert checked > 500


def test_pages_load_nothing_from_other_sites(site):
    loaded = {
        link
        for path in site.glob("**/*.html")
        for tag, link in Page(path).links
        if tag in ("script", "img", "link")
        and link.startswith(("http:", "https:", "//"))
    }
    assert not loaded


def test_pictures_have_descriptions_and_wide_ones_are_marked(site):
    pages = [path.read_text(encoding="utf-8") for path in site.glob("**/*.html")]
    pictures = [tag for page in pages for tag in re.findall("<img [^>]*>", page)]
    drawn = [tag for tag in pictures if "pictures/" in tag]
    assert len(drawn) >= 9
    assert all(re.search(r'alt="[^"]{30}', tag) for tag in drawn)
    wide = (site / "results" / "steps.html").read_text(encoding="utf-8")
    assert '<a class="picture wide" href="../pictures/intervals.png"><img ' in wide
    narrow = (site / "results.html").read_text(encoding="utf-8")
    assert '<a class="picture" href="pictures/gains.png"><img ' in narrow


def test_tables_keep_intervals_on_one_line(site):
    page = (site / "results.html").read_text(encoding="utf-8")
    cells = re.findall("<td[^>]*>(.*?)</td>", page, re.DOTALL)
    intervals = [cell for cell in cells if re.search(r"\[[-+]\d", cell)]
    assert len(intervals) > 10
    assert not any(re.search(r"\[[-+][\d.]+, ", cell) for cell in intervals)


def test_tables_of_contents_leave_out_settings(site):
    page = (site / "results" / "few_labels.html").read_text(encoding="utf-8")
    contents = re.findall('<span class="md-ellipsis">(.*?)</span>', page, re.DOTALL)
    titles = [" ".join(re.sub("<[^>]+>", "", title).split()) for title in contents]
    assert "watch_acc_gyro: 3193 rows, 2 scenes labeled, teacher on these" in titles
    assert not any("batches of" in title for title in titles)


def test_reference_has_all_public_names(site):
    anchors = set().union(*(Page(path).anchors for path in site.glob("api/*.html")))
    described = {anchor.rsplit(".")[-1] for anchor in anchors if "." in anchor}
    public = {
        *keras_dskd.__all__,
        *keras_dskd.layers.__all__,
        *keras_dskd.losses.__all__,
        *keras_dskd.ops.__all__,
    }
    assert public - described == {"__version__", "callbacks", "layers", "losses", "ops"}
