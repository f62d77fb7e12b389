"""Hooks of the documentation site: add pages and pictures from other folders.

Pages that are stored beside the code, such as `DISTRIBUTED.md`, are also part of the
site. Links in the pages work in the repository. The hooks rewrite them to the page on
the site, or to the file's name if the file is not on the site.
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
