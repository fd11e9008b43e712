"""What docs/testing.md shows is true: its files are a test suite that passes, and its tables name what there is."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

from stepwell.testing import MemoryJournal, fixtures

PAGE = (pathlib.Path(__file__).resolve().parents[1] / "docs" / "testing.md").read_text(encoding="utf-8")


def files() -> dict[str, str]:
    """The blocks of the page by the names in their first lines."""
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGE.count("```python")
    return dict(blocks)


def run_pytest(directory: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in a directory as somebody would who has nothing of ours but the package."""
    (directory / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n", encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rfE", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_the_files_of_the_page_are_a_test_suite_that_passes(tmp_path: pathlib.Path) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 100


def test_an_agent_without_keys_fails_the_test_of_the_page(tmp_path: pathlib.Path) -> None:
    for name, text in files().items():
        broken = text.replace(', key="patch-1")\n    while', ")\n    while") if name == "agent.py" else text
        assert name != "agent.py" or broken != text
        (tmp_path / name).write_text(broken, encoding="utf-8")
    done = run_pytest(tmp_path, "test_agent.py")
    assert done.returncode == 1
    assert "test_a_lost_acknowledgement_does_not_log_it_twice" in done.stdout


def test_without_the_fixtures_named_none_is_loaded(tmp_path: pathlib.Path) -> None:
    (tmp_path / "test_bare.py").write_text("def test_bare(memory_journal):\n    pass\n", encoding="utf-8")
    done = run_pytest(tmp_path)
    assert "fixture 'memory_journal' not found" in done.stdout


def test_the_tables_name_what_there_is() -> None:
    for name in re.findall(r"^\| `(\w+_next)\(", PAGE, re.MULTILINE):
        assert callable(getattr(MemoryJournal, name))
    told = set(re.findall(r"`(memory\w*)`", PAGE[PAGE.index("| fixture") : PAGE.index("This is the agent")]))
    assert told == {name for name in vars(fixtures) if name.startswith("memory")}


def test_without_pytest_the_error_says_what_to_install(tmp_path: pathlib.Path) -> None:
    for missing in ("pytest", "pytest_trio"):
        (tmp_path / f"{missing}.py").write_text("raise ImportError('not there')\n", encoding="utf-8")
        for module in ("fixtures", "journal_contract"):
            done = subprocess.run(
                [sys.executable, "-c", f"import stepwell.testing; import stepwell.testing.{module}"],
                env={"PYTHONPATH": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=280,
                check=False,
            )
            assert done.returncode == 1
            assert "pip install 'stepwell[testing]'" in done.stderr.splitlines()[-1], done.stderr
        (tmp_path / f"{missing}.py").unlink()
