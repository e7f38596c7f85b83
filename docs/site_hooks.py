"""What the site (mkdocs.yml) adds to docs/: pages from elsewhere, a page per package, links that lead out of docs/.

Links are written for GitHub, as paths between files. In the site, one to a page leads to the page, one to
anything else of the repository to its address there: PAPO_SOURCE_URL, or else this checkout.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
ADOPTED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "benchmarks/README.md": "how_benchmarks_measure.md",
    "servers/vllm/README.md": "vllm_servers.md",
}
"""Files outside docs/ that are pages, and their names in the site."""

API = "api"
SOURCE_OF = {page: source for source, page in ADOPTED.items()}


def github_anchor(heading: str, separator: str = "-") -> str:
    """Returns the anchor that GitHub gives a heading, its Markdown taken off."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def packages() -> dict[str, list[str]]:
    """Returns every package of papo with the modules in it, as dotted names."""
    found = {}
    for init in sorted((REPOSITORY / "papo").rglob("__init__.py")):
        modules = [path for path in sorted(init.parent.glob("*.py")) if path.stem[0] != "_"]
        found[_dotted(init.parent)] = [_dotted(path.with_suffix("")) for path in modules]
    return found


def rewritten(markdown: str, source: str) -> str:
    """Returns a page of the site with the links of the file it comes from."""
    here = posixpath.dirname(_page_of(source) or source)

    def follow(match: re.Match[str]) -> str:
        path, sharp, anchor = match[2].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page = _page_of(file)
        target = f"{_address()}/{file}" if page is None else posixpath.relpath(page, here or ".")
        return f"{match[1]}{target}{sharp}{anchor}{match[3]}"

    return re.sub(r"""(\]\(|src=")([^)\s"]+)(\)|")""", follow, markdown)


def on_config(config: Any) -> Any:
    """Gives headings GitHub's anchors and the navigation a page per package."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = github_anchor
    config.nav.append({"Code": [{name: f"{API}/{name}.md"} for name in packages()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the adopted pages and those of the packages."""
    from mkdocs.structure.files import File

    for source, page in ADOPTED.items():
        text = (REPOSITORY / source).read_text("utf-8")
        files.append(File.generated(config, page, content=text))
    for name, modules in packages().items():
        # What a package takes from its modules stands below these.
        alone = f"::: {name}\n    options: {{members: false, show_root_heading: false}}"
        lines = [f"# {name}", alone, *(f"::: {module}" for module in modules)]
        files.append(File.generated(config, f"{API}/{name}.md", content="\n\n".join(lines)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turns links for GitHub into links of the site."""
    name = page.file.src_uri
    if name.startswith(f"{API}/"):
        return markdown
    return rewritten(markdown, SOURCE_OF.get(name, f"docs/{name}"))


def _page_of(file: str) -> str | None:
    if file in ADOPTED:
        return ADOPTED[file]
    return file.removeprefix("docs/") if file.startswith("docs/") else None


def _address() -> str:
    return os.environ.get("PAPO_SOURCE_URL") or REPOSITORY.as_uri()


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).parts)
