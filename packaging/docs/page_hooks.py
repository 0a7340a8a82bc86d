"""Hooks of mkdocs: pages from outside of `docs/`, and the checks that `--strict` does not make.

Pages are written for GitHub's Markdown, which is CommonMark; mkdocs reads another dialect. Each page must have the same
blocks in both.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from mkdocs.structure.files import File
from pymdownx.slugs import slugify

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

# A warning fails the build, after all pages were read.
log = logging.getLogger("mkdocs.hooks.bpf_watchdog")
CHECKOUT = Path(__file__).parents[2]
# Pages of the checkout's top folder that are also pages of the site.
OUTER_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")
OUTSIDE_ASSET = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
BLOCK = re.compile(r"<(table|ul|ol|li|blockquote|h[1-6])[ >]")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the anchors of headings those of GitHub."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the top folder."""
    for name in OUTER_PAGES:
        files.append(File.generated(config, name, abs_src_path=str(CHECKOUT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead links between `docs/` and the top folder to the pages of the site."""
    if page.file.src_uri in OUTER_PAGES:
        return markdown.replace("](docs/", "](")
    for name in OUTER_PAGES:
        markdown = markdown.replace(f"](../{name}", f"]({name}")
    return markdown


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Compare the blocks of the page with those of CommonMark."""
    expected = Counter(BLOCK.findall(MarkdownIt().enable("table").render(page.markdown or "")))
    found = Counter(BLOCK.findall(html))
    if found != expected:
        log.warning("%s: blocks are %s, in CommonMark %s", page.file.src_uri, dict(found), dict(expected))
    return html


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Look for assets that the browser would fetch from other hosts."""
    if outside := OUTSIDE_ASSET.findall(output):
        log.warning("%s fetches from another host: %s", page.file.src_uri, ", ".join(outside))
    return output
