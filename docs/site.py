"""Finishes the built site: files of the repository that pages link to are taken along, and no link leads nowhere."""

import html.parser
import pathlib
import shutil
import sys
import urllib.parse

SITE = pathlib.Path(sys.argv[1]).resolve()
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

MENDED = [
    # mdBook makes index.html of a README.md, but not of a link to one.
    ("README.html", "index.html"),
    # What acts as a button says so, and a block that scrolls can be reached without a mouse.
    ('<label id="mdbook-sidebar-toggle"', '<label role="button" id="mdbook-sidebar-toggle"'),
    ("<pre><code ", '<pre><code tabindex="0" '),
    ("<pre><code>", '<pre><code tabindex="0">'),
    ('<div class="table-wrapper">', '<div class="table-wrapper" tabindex="0" role="region" aria-label="Table">'),
]


class Page(html.parser.HTMLParser):
    """What a page names and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.names, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("id", "name"):
                self.names.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def main():
    files = [file for file in SITE.rglob("*.html") if file.name not in ("404.html", "toc.html", "print.html")]
    for file in SITE.rglob("*.html"):
        text = file.read_text()
        for old, new in MENDED:
            text = text.replace(old, new)
        file.write_text(text)
    pages = {file: Page(file.read_text()) for file in files}
    dead = []
    for file, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (file.parent / urllib.parse.unquote(url.path)).resolve() if url.path else file
            if not target.is_relative_to(SITE):
                target = taken_along(file, link, target)
            known = pages.get(target)
            if target is None or not target.exists() or (known and url.fragment and url.fragment not in known.names):
                dead.append(f"{file.relative_to(SITE)}: {link}")
    if dead:
        sys.exit("\n".join(["links that lead nowhere:", *dead]))


def taken_along(page, link, target):
    """Of a link that leaves the site: a copy of the file it leads to."""
    # Pages lie under docs in the repository, and in the site at its root.
    name = target.relative_to(SITE.parent) if target.is_relative_to(SITE.parent) else None
    source = name and REPOSITORY / name
    if source is None or not source.is_file():
        return None
    copy = SITE / "repository" / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, copy)
    here = "../" * len(page.relative_to(SITE).parent.parts)
    page.write_text(page.read_text().replace(f'"{link}"', f'"{here}repository/{name}"'))
    return copy


main()
