"""Links of the pages, and the pages of the site (packaging/docs/mkdocs.yml), without mkdocs."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

CHECKOUT = Path(__file__).parents[3]
SITE = CHECKOUT / "packaging/docs/mkdocs.yml"
OUTER_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")  # of the site, from outside of docs/
PAGES = sorted((CHECKOUT / "docs").rglob("*.md"))
MARKDOWN = MarkdownIt().enable("table")


def inline_tokens(text):
    """Return the tokens of a page's texts, code left out."""
    return [child for token in MARKDOWN.parse(text) for child in token.children or ()]


def links(text):
    """Return the targets of the links and images of a page."""
    return [str(token.attrs.get("href") or token.attrs.get("src")) for token in inline_tokens(text) if token.attrs]


@cache
def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    tokens = MARKDOWN.parse(page.read_text())
    found = set()
    for opening, heading in pairwise(tokens):
        if opening.type == "heading_open":
            words = "".join(token.content for token in heading.children or ())
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            number = sum(1 for other in found if re.fullmatch(re.escape(slug) + r"(-\d+)?", other))
            found.add(f"{slug}-{number}" if slug in found else slug)
    return found


def problems(page, site=None):
    """Return the links of a page that lead nowhere; of a page of the folder `site`, also those that leave the site."""
    wrong = []
    for link in links(page.read_text()):
        parts = urlsplit(link)
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if parts.scheme:
            wrong += [] if parts.scheme == "https" else [f"{link}: only https:// leads to other hosts"]
        elif not target.exists():
            wrong.append(f"{link}: no such file")
        elif parts.fragment and (target.suffix != ".md" or parts.fragment not in anchors(target)):
            wrong.append(f"{link}: no such heading")
        elif site and site not in target.parents and target.name not in OUTER_PAGES:
            wrong.append(f"{link}: not on the site")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_of_a_page_leads_to_a_page_and_a_heading_of_the_site(page):
    assert not problems(page, site=CHECKOUT / "docs")


@pytest.mark.parametrize("name", ["README.md", *OUTER_PAGES])
def test_each_link_of_the_top_folder_leads_to_a_file(name):
    assert not problems(CHECKOUT / name)


def test_each_page_is_once_on_the_site_and_the_site_has_no_other():
    # Read as lines: a parser of YAML is part of mkdocs, and of nothing that the tests need.
    nav = SITE.read_text().partition("\nnav:\n")[2]
    named = re.findall(r"^ *- [^:]+: (\S+\.md)$", nav, re.MULTILINE)
    assert len(named) == nav.count(".md")
    pages = [str(page.relative_to(CHECKOUT / "docs")) for page in PAGES]
    assert sorted(named) == sorted([*pages, *OUTER_PAGES])


def test_each_page_is_in_the_overview_and_each_picture_on_a_page():
    docs = CHECKOUT / "docs"
    overview = set(links((docs / "index.md").read_text()))
    assert {page.name for page in PAGES} - overview == {"index.md"}
    used = {link for page in PAGES for link in links(page.read_text())}
    assert {str(picture.relative_to(docs)) for picture in (docs / "images").iterdir()} <= used


BROKEN = """# A page

## `a_key` and [b]: more

[file](absent.md), [heading](#a-heading), [right](#a_key-and-b-more), ![picture](images/absent.svg), [plain](http://host.example),
[other page](other.md#none), [outside](../outside.md), `[code](absent.md)`

```
[fence](absent.md)
```
"""


def test_broken_links_of_every_kind_are_found(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "outside.md").write_text("# Outside\n")
    (docs / "other.md").write_text("# Other\n")
    (docs / "page.md").write_text(BROKEN)
    assert problems(docs / "page.md", site=docs) == [
        "absent.md: no such file",
        "#a-heading: no such heading",
        "images/absent.svg: no such file",
        "http://host.example: only https:// leads to other hosts",
        "other.md#none: no such heading",
        "../outside.md: not on the site",
    ]
    assert problems(docs / "page.md")[-1] == "other.md#none: no such heading"
