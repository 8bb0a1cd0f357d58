"""The files of the site: the repository's pages under their own paths, so that links work as on disk, and a page per module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

import safevlm

ROOT = Path(__file__).parents[2]
PAGES = ("*.md", "docs/*.md", "docs/plots/*.png", "training/**/*.md", "checkpoints/README.md")
API = re.compile(r"api/([\w.]+)\.md")
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|mailto:|#)([^)#\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Anchors of headings are GitHub's, which the pages' links name."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's pages and pictures, and the API's pages that `nav` names."""
    for path in (found for pattern in PAGES for found in sorted(ROOT.glob(pattern))):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    for name in _leaves(config.nav):
        if found := API.fullmatch(name):
            files.append(File.generated(config, name, content=_api(found[1])))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Links to files of the repository that are no page, such as examples, become the files' names."""
    folder = (ROOT / page.file.src_uri).parent

    def named(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        name = target.relative_to(ROOT).as_posix()
        if not target.exists() or files.get_file_from_path(name):
            return link[0]
        text = link[1].strip("`")
        return f"`{name}`" if text in (name, target.name) else f"{text} (`{name}`)"

    return LINK.sub(named, markdown)


def _leaves(nav: Any) -> Iterator[str]:
    """The pages that a navigation names, at any depth."""
    if isinstance(nav, str):
        yield nav
    elif nav:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from _leaves(item)


def _api(module: str) -> str:
    """Markdown of a module's page."""
    if module == "safevlm":
        return _front_door()
    # the folder `training` is installed as safevlm.training
    source = module.removeprefix("safevlm.") if module.startswith("safevlm.training") else module
    page = f"---\ntitle: {module}\n---\n\n::: {source}\n    options: {{heading: {module}}}\n"
    folder = ROOT / source.replace(".", "/")
    for name in exported(folder / "__init__.py"):
        if (folder / f"{name}.py").exists():  # griffe takes the name for the submodule
            options = f"{{heading: {module}.{name}, heading_level: 2}}"
            page += f"\n::: {source}.{name}.{name}\n    options: {options}\n"
    return page


def _front_door() -> str:
    """Names that `safevlm` gives, with links to the entries of where they are defined."""
    page = "# safevlm\n\nWhat `from safevlm import ...` gives; `import safevlm` alone loads no torch.\n\n"
    for name, home in safevlm._HOMES.items():
        twice = (ROOT / "safevlm" / home / f"{name}.py").exists()
        page += f"- [`{name}`][safevlm.{home}.{f'{name}.' if twice else ''}{name}]\n"
    return page


def exported(file: Path) -> list[str]:
    """`__all__` of a package, without importing it; empty where there is none."""
    if not file.exists():
        return []
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []
