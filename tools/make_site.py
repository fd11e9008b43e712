"""Build the documentation site in `site/`, from `docs/` and the pages that stand at the top of the repository.

    python tools/make_site.py            # build; every warning is an error
    python tools/make_site.py --stage D  # only put the pages and their configuration together in D

The pages of `SECTIONS` come in that order; every other page of `docs/` is found by itself and comes under "More".
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SITE = ROOT / "site"
SECTIONS: dict[str, list[str]] = {
    "Start": ["index.md", "quickstart.md", "concepts.md", "howto.md", "cli.md", "testing.md"],
    "Memory": ["learning.md", "retrieval.md", "recall.md", "ports.md", "features.md"],
    "Contracts": ["durability.md", "format.md", "reliability.md", "operations.md", "security.md"],
    "Reference": ["api.md", "decisions.md", "comparison.md", "trials-cli.md", "trials.md", "changelog.md"],
}
FROM_THE_TOP = {"SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}
"""Pages that people look for at the top of a repository, and what they are called on the site."""
REPOSITORY = "https://example.invalid/stepwell"
"""Where the sources can be looked at; pages link to files that are not on the site."""


def stage(target: Path) -> Path:
    """Put pages and configuration together in a directory; gives the configuration."""
    pages = target / "docs"
    shutil.copytree(DOCS, pages)
    for source, name in FROM_THE_TOP.items():
        shutil.copy(ROOT / source, pages / name)
    for page in pages.glob("*.md"):
        page.write_text(_links(page.read_text(encoding="utf-8"), page.name), encoding="utf-8")
    config = target / "zensical.toml"
    config.write_text(_configuration(sorted(page.name for page in pages.glob("*.md"))), encoding="utf-8")
    return config


def _links(text: str, page: str) -> str:
    """Links as they are right on the site: of pages from the top to `docs/`, and of all to what is not on the site."""
    at_top = page in FROM_THE_TOP.values()

    def moved(match: re.Match[str]) -> str:
        before, link, anchor = match[1], match[2], match[3] or ""
        path = (ROOT / link if at_top else DOCS / link).resolve()
        if not path.is_relative_to(ROOT):
            return match[0]
        inside = path.relative_to(ROOT).as_posix()
        if inside in FROM_THE_TOP:
            return f"{before}({FROM_THE_TOP[inside]}{anchor})"
        if path.is_relative_to(DOCS):
            return f"{before}({path.relative_to(DOCS).as_posix()}{anchor})"
        return f"{before}({REPOSITORY}/blob/main/{inside})"

    return re.sub(r"(\])\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)", moved, text)


def _configuration(pages: list[str]) -> str:
    listed = {name for names in SECTIONS.values() for name in names}
    sections = {title: [name for name in names if name in pages] for title, names in SECTIONS.items()}
    sections["More"] = [name for name in pages if name not in listed]
    nav = [{title: names} for title, names in sections.items() if names]
    roots = [str(ROOT / "actors"), str(ROOT / "storage")]
    return f"""
[project]
site_name = "Stepwell"
site_description = "Embeddable episodic memory for AI agents"
site_url = "{REPOSITORY}/"
docs_dir = "docs"
site_dir = "site"
nav = [{", ".join(_toml(item) for item in nav)}]

[project.theme]
features = ["navigation.sections", "navigation.top", "content.code.copy", "toc.follow"]
font = false

[project.markdown_extensions.admonition]
[project.markdown_extensions.attr_list]
[project.markdown_extensions.md_in_html]
[project.markdown_extensions.tables]
[project.markdown_extensions.toc]
permalink = true
[project.markdown_extensions.pymdownx.highlight]
[project.markdown_extensions.pymdownx.superfences]

[project.plugins.mkdocstrings.handlers.python]
paths = {json.dumps(roots)}
inventories = []

[project.plugins.mkdocstrings.handlers.python.options]
docstring_style = "google"
preload_modules = ["stepstore"]
inherited_members = true
members_order = "source"
show_root_heading = true
show_source = false
show_if_no_docstring = false
heading_level = 3
separate_signature = true
show_signature_annotations = true
"""


def _toml(item: dict[str, list[str]]) -> str:
    ((title, names),) = item.items()
    return "{" + json.dumps(title) + " = " + json.dumps(names) + "}"


def build(target: Path) -> int:
    """Build the site into a directory; the exit code of the builder."""
    with tempfile.TemporaryDirectory(prefix="stepwell-site-") as place:
        config = stage(Path(place))
        command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(config)]
        done = subprocess.run(command, cwd=place, check=False)
        if done.returncode == 0:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(Path(place) / "site", target)
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stage", type=Path)
    parser.add_argument("--to", type=Path, default=SITE)
    arguments = parser.parse_args()
    if arguments.stage is not None:
        print(stage(arguments.stage))
        return 0
    return build(arguments.to)


if __name__ == "__main__":
    sys.exit(main())
