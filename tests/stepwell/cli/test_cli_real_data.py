"""The real agent data goes through `import` and `export` field by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwell.cli.neutral_form import same
from tests.stepwell.cli.cli_support import DATA, EVENT_FILES, by_episode, exported, read_lines, real_file, run, run_json

OTHERS = ("*.gold.jsonl.gz", "*.retrieval.jsonl.gz", "locomo.*.jsonl.gz")


@pytest.mark.parametrize("name", EVENT_FILES)
def test_every_event_of_a_real_file_survives_and_a_second_import_adds_nothing(tmp_path: Path, name: str) -> None:
    source, memory = real_file(name), tmp_path / "memory"
    report = run_json("import", source, "--strict", "--dir", memory)
    wanted, got = by_episode(read_lines(source)), by_episode(exported(memory, tmp_path / "out.jsonl.gz"))
    assert report["episodes"] == len(wanted)
    assert got.keys() == wanted.keys()
    for episode_id, events in wanted.items():
        for event, back in zip(events, got[episode_id], strict=True):
            for field in event.keys() | back.keys():
                assert field in event, f"{episode_id}: {field} was added"
                assert field in back, f"{episode_id}: {field} is lost"
                assert same(event[field], back[field]), f"{episode_id}: {field} was changed"
    again = run_json("import", source, "--strict", "--dir", memory)
    assert again["added"] == 0
    assert again["present"] == sum(map(len, wanted.values()))


def test_real_files_without_events_are_refused_by_name(tmp_path: Path) -> None:
    good, memory = real_file("toolbench-sample"), tmp_path / "memory"
    others = sorted(path for pattern in OTHERS for path in DATA.glob(pattern))
    assert others
    for path in others:
        result = run("import", good, path, "--dir", memory)
        assert result.exit_code == 1
        assert path.name in result.stderr
        assert not memory.exists()
