"""The HTML page of a structure report."""

import base64
import dataclasses
import functools
import shutil
import subprocess
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from structure_model import images, model

import keras_dskd

pytest.importorskip("matplotlib", reason="figures need matplotlib")

# Reports hold NumPy arrays on every backend: see test_structure.py.
pytestmark = pytest.mark.backend_neutral

#: Elements without an end tag.
VOID = {"meta", "img"}


class Document(HTMLParser):
    """A parsed page: start tags with attributes, and text by element.

    Raises if elements are not nested correctly.
    """

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], {}
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in self.open:
            self.texts[tag][-1] += data

    def attributes(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@functools.cache
def report():
    labels = np.arange(40) % 3
    return keras_dskd.structure_report(model(), images(), ["map", "features"], labels)


def document(path, *reports, **options):
    first, *others = reports
    first.to_html(path, *others, **options)
    return Document(path.read_text(encoding="utf-8"))


def test_the_table_has_the_numbers_of_to_dict(tmp_path):
    reports = [dataclasses.replace(report(), name=name) for name in ("before", "after")]
    page = document(tmp_path / "report.html", *reports)
    expected = []
    for data in (each.to_dict() for each in reports):
        for numbers in data["layers"].values():
            for key in ("mean_correlation", "uniformity", "effective_rank"):
                expected.append(numbers[key])
            expected.append(data["accuracy"])
    assert [float(data["value"]) for data in page.attributes("data")] == expected
    assert page.texts["data"][0] == f"{expected[0]:.3f}"
    heads = [text for text in page.texts["th"] if text in ("before", "after", "map")]
    assert heads == ["before", "map", "before", "after", "map", "after"]
    assert page.texts["td"][:2] == ["40 of 40", "5"]


def test_every_column_and_panel_is_explained(tmp_path):
    page = document(tmp_path / "report.html", report())
    columns = page.texts["th"][2:9]
    assert page.texts["dt"] == [*columns, "Matrices", "Spheres", "Curves"]
    assert all(page.texts["dd"])


def test_the_page_embeds_its_figures_and_loads_nothing(tmp_path):
    page = document(tmp_path / "report.html", report())
    pictures = page.attributes("img")
    assert len(pictures) == 2
    for picture in pictures:
        kind, data = picture["src"].split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
        assert "correlations between channels" in picture["alt"]
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    others = [v for _, attrs in page.tags for k, v in attrs.items() if k != "src"]
    assert not any("://" in value for value in others)
    assert "url(" not in page.texts["style"][0]
    assert page.attributes("html") == [{"lang": "en"}]


def test_names_are_escaped(tmp_path):
    hostile = "<script>alert('x')</script> & \"net\""
    (_, feature), *_ = report().layers.items()
    named = dataclasses.replace(report(), name=hostile, layers={hostile: feature})
    page = document(tmp_path / "report.html", named, title="</title><b>")
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert page.texts["th"][-2:] == [hostile, hostile]
    assert hostile in page.attributes("img")[0]["alt"]
    assert page.texts["h1"] == ["</title><b>"]


def test_the_page_of_two_reports_compares_their_correlations(tmp_path):
    page = document(tmp_path / "report.html", report(), report())
    assert len(page.attributes("img")) == 2 * 2


def test_accuracy_is_empty_without_labels(tmp_path):
    bare = dataclasses.replace(report(), labels=None, accuracy=None)
    page = document(tmp_path / "report.html", bare)
    assert page.texts["td"][6] == ""


def test_the_footer_names_versions_and_backend(tmp_path):
    page = document(tmp_path / "report.html", report())
    (footer,) = page.texts["footer"]
    assert f"keras_dskd {keras_dskd.__version__}" in footer
    assert f"backend {keras.backend.backend()}" in footer


def test_reports_with_different_numbers_of_layers_raise(tmp_path):
    (first, feature), *_ = report().layers.items()
    shallow = dataclasses.replace(report(), layers={first: feature})
    with pytest.raises(ValueError, match="same number of layers"):
        report().to_html(tmp_path / "report.html", shallow)


def test_a_browser_parses_the_page(tmp_path):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("Chromium is not installed")
    path = tmp_path / "report.html"
    report().to_html(path)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    result = subprocess.run(
        [browser, *options, f"--user-data-dir={tmp_path / 'browser'}", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Structure of features: net" in Document(result.stdout).texts["h1"]
