"""Every block of code in the documentation runs, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

import stepwell
from stepwell.cli.app import cli
from tests.docs_blocks import PAGES, ROOT, RUN_ELSEWHERE, blocks, environment_of, programs, run


@pytest.mark.timeout(600)  # a page has up to twenty programs, each in a process of its own
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_their_order(page: Path, tmp_path: Path) -> None:
    for module in RUN_ELSEWHERE.get(str(page.relative_to(ROOT)), "").split(", "):
        if module:
            assert (ROOT / module).is_file()
            return
    environment = environment_of(tmp_path)
    for place, command in programs(page):
        done = run(command, tmp_path, environment)
        assert done.returncode == 0, f"{place}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{place}: {done.stderr}"


def test_the_reference_has_every_public_name() -> None:
    written = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"stepwell\.(\w+)", written)) | set(vars(stepwell.errors))
    public = {name for name in dir(stepwell) if not name.startswith("_")} - {"annotations", "TYPE_CHECKING"}
    missing = {name for name in public - named if not isinstance(getattr(stepwell, name), ModuleType)}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_rows_of_a_table_have_as_many_cells_as_its_head(page: Path) -> None:
    head = 0
    in_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        in_code ^= line.startswith("```")
        if in_code or not line.startswith("|"):
            head = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        head = head or cells
        assert cells == head, f"{page.name}:{number}"


def test_a_block_that_is_not_run_says_why() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert not block.reason or len(block.reason.split()) >= 4, f"{block}: {block.reason!r} is no reason"


def test_the_collector_sees_what_there_is(tmp_path: Path) -> None:
    text = (
        "```python\n# a.py\nprint(1)\n```\n\n```sh\nexit 3\n```\n\n<!-- not run: there is no such machine -->\n"
        "```sh\nhalt\n```\n\n```python\nx = await memory.handle('e').events().__anext__()\n```\n```json\n{}\n```\n"
        "- in a list:\n\n  ```console\n  $ echo hello\n  hello\n  ```\n"
    )
    (tmp_path / "page.md").write_text(text)
    found = blocks(tmp_path / "page.md")
    assert [(block.language, block.line, block.reason) for block in found] == [
        ("python", 2, ""),
        ("sh", 7, ""),
        ("sh", 12, "there is no such machine"),
        ("python", 16, ""),
        ("console", 24, ""),
    ]
    assert found[4].text == "$ echo hello\nhello\n"


HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.M)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page, as its headings make them; of `api.md` everything, since its headings are docstrings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    heads = [re.sub(r"[`*\[\]]|\(.*?\)(?=$)", "", head) if "](" in head else head for head in HEADING.findall(text)]
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"`[^`\n]*`", "", text)
    for link in LINK.findall(text):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md" and target.name != "api.md":
            assert anchor in anchors(target), f"{page.name}: {link}; there are {sorted(anchors(target))}"


def test_pictures_fetch_nothing_and_are_all_shown() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in (ROOT / "docs").rglob("*.svg"):
        text = picture.read_text(encoding="utf-8")
        outside = set(re.findall(r"(?:href|src|url)\s*[=(]\s*[\"']?(https?:[^\"')]+)", text))
        assert not outside, f"{picture.name}: {outside}"
        shown = picture.relative_to(ROOT / "docs")  # or the same as a bitmap, where a drawing has thousands of lines
        assert any(path.as_posix() in pages for path in (shown, shown.with_suffix(".png"))), f"{shown} is on no page"


def test_every_command_has_a_picture() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    missing = {name for name in cli.commands if f"`stepwell {name}" not in page}
    assert not missing, f"tools/terminal_pictures.py takes no picture of {missing}"
