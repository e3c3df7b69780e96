"""Hooks of MkDocs: pages from outside of ``docs/``, the notebook as a page, and links to files of the repository.

``README.md``, ``CONTRIBUTING.md`` and others stay where readers of the repository look for them, and become pages of
the site. Links between all of them are rewritten. A link to another file of the repository leads to a copy of that
file; a link to a folder becomes plain text.
"""

import json
import os.path
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
    "datasets/README.md": "datasets.md", "docs/tutorial.ipynb": "tutorial.md",
}  # fmt: skip
"""File of the repository → page of the site."""
COPIES = "repository"
"""Folder of the site with copies of single files."""

_FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):(?=<code>)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, and the files that pages link to."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        if (ROOT / name).is_file():
            files.append(File.generated(config, page, content=read(ROOT / name)))
    for source in sorted(linked_files(ROOT)):
        files.append(File.generated(config, f"{COPIES}/{source}", abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    source = {v: k for k, v in PAGES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return rewritten(markdown, source, page.file.src_uri, ROOT)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Sphinx's roles in docstrings (``:class:`Name```) are shown as their names."""
    return _ROLE.sub("", html)


def read(path: Path) -> str:
    """The Markdown of a page; a notebook as its text and code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells) + "\n"


def linked_files(root: Path) -> set[str]:
    """Files of the repository, outside of docs/, that any page links to."""
    sources = [*PAGES, *(str(path.relative_to(root)) for path in root.glob("docs/**/*.md"))]
    found: set[str] = set()
    for source in sources:
        if (root / source).is_file():
            for match in _LINK.finditer(_FENCE.sub("", read(root / source))):
                target = resolved(match[3], source)
                if target and target not in PAGES and not target.startswith("docs/") and (root / target).is_file():
                    found.add(target)
    return found


def resolved(link: str, source: str) -> str | None:
    """The path in the repository that a link in ``source`` names; None for a web address or a place in the page."""
    path = link.partition("#")[0]
    if not path or re.match(r"[a-z]+:", link):
        return None
    return os.path.normpath(posixpath.join(posixpath.dirname(source), path))


def rewritten(markdown: str, source: str, page: str, root: Path) -> str:
    """The text of a page with links that are right in the site.

    Args:
        markdown: the text.
        source: its file in the repository.
        page: its place in the site.
        root: the repository.
    """

    def link(match: re.Match[str]) -> str:
        target = resolved(match[3], source)
        if target is None:
            return match[0]
        if (root / target).is_dir():
            return match[2]
        place = PAGES.get(target) or (
            target.removeprefix("docs/") if target.startswith("docs/") else f"{COPIES}/{target}"
        )
        anchor = match[3].partition("#")[1] + match[3].partition("#")[2]
        return f"{match[1]}[{match[2]}]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{anchor})"

    return outside_fences(markdown, lambda text: _LINK.sub(link, text))


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """``change`` applied to everything but blocks of code."""
    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])
