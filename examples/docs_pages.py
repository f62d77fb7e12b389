"""Hooks of the documentation site: add pages and pictures from other folders.

Pages that are stored beside the code, such as `DISTRIBUTED.md`, are also part of the
site. Links in the pages work in the repository. The hooks rewrite them to the page on
the site, or to the file's name if the file is not on the site. They also mark what
needs room on narrow screens, for `site.css`.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from mkdocs.structure.files import File

EXAMPLES = Path(__file__).resolve().parent
REPOSITORY = EXAMPLES.parent
PAGES = {
    "changelog.md": REPOSITORY / "CHANGELOG.md",
    "distributed.md": EXAMPLES / "DISTRIBUTED.md",
    "results.md": EXAMPLES / "benchmarks" / "RESULTS.md",
    **{
        f"results/{path.name}": path
        for path in sorted((EXAMPLES / "benchmarks" / "tables").glob("*.md"))
    },
}
PICTURES = (
    *EXAMPLES.glob("*.png"),
    *EXAMPLES.glob("*.gif"),
    *(EXAMPLES / "benchmarks" / "results").glob("*.png"),
)
ELSEWHERE = PAGES | {f"pictures/{path.name}": path for path in PICTURES}
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<link>[^)\s]+)\)")
PICTURE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<link>[^)\s]+)\)")
DRAWN = re.compile(r'<img [^>]*src="(?P<link>[^"]+)"[^>]*>')
CELL = re.compile(r"<td(?P<attributes>[^>]*)>(?P<content>.*?)</td>", re.DOTALL)
INTERVAL = re.compile(r"\[[-+]?[\d.]+, [-+]?[\d.]+\]")
TAG = re.compile(r"<[^>]+>")
# What a heading of a table of runs has besides the data and the labels.
SETTINGS = re.compile(
    r" \(\w+, Keras [\d.]+\)| to train|, \d+ (test|validation) rows"
    r"|, \d+ epochs|, epochs by validation \(.*?\)|, batches of \d+"
)
WIDE = 1000  # Pixels. The letters of wider pictures are small on a phone.
LONG = 40  # Characters


def on_files(files, config):
    """Adds pages and pictures from outside the folder of pages."""
    for uri, path in ELSEWHERE.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrites links to files of the repository."""
    source = Path(page.file.abs_src_path).resolve()
    uris = {path.resolve(): uri for uri, path in ELSEWHERE.items()}
    pages = Path(config.docs_dir).resolve()

    def rewritten(match):
        link, anchor = (match["link"].split("#", 1) + [""])[:2]
        if not link or "://" in link:
            return match[0]
        target = (source.parent / unquote(link)).resolve()
        if target.is_relative_to(pages):
            uri = target.relative_to(pages).as_posix()
        elif target in uris:
            uri = uris[target]
        elif target.exists():
            return match["text"]
        else:
            return match[0]  # A dead link, which the build reports.
        relative = os.path.relpath(uri, Path(page.file.src_uri).parent)
        return match[0].replace(
            match["link"], relative + (f"#{anchor}" if anchor else "")
        )

    return PICTURE.sub(rewritten, LINK.sub(rewritten, markdown))


def on_page_content(html, page, config, files):
    """Marks wide pictures and long cells, and shortens the table of contents."""
    if page.file.src_uri.startswith("results/"):
        shorten(page.toc)
    return CELL.sub(with_room, DRAWN.sub(with_link, html))


def shorten(entries):
    """Leaves out the settings that all tables of a page share."""
    for entry in entries:
        entry.title = SETTINGS.sub("", entry.title)
        shorten(entry.children)


def with_link(picture):
    """A picture that links to itself, with a class if it is wide."""
    paths = {path.name: path for path in PICTURES}
    path = paths.get(picture["link"].rpartition("/")[2])
    if path is None:
        return picture[0]
    content = path.read_bytes()
    is_wide = path.suffix == ".png" and int.from_bytes(content[16:20], "big") > WIDE
    kind = "picture wide" if is_wide else "picture"
    return f'<a class="{kind}" href="{picture["link"]}">{picture[0]}</a>'


def with_room(cell):
    """A cell whose intervals stay on one line, with a class if its text is long."""
    content = INTERVAL.sub(
        lambda interval: interval[0].replace(" ", "&nbsp;"), cell["content"]
    )
    is_long = len(TAG.sub("", content)) > LONG
    kind = ' class="long"' if is_long and not cell["attributes"] else ""
    return f"<td{kind}{cell['attributes']}>{content}</td>"
