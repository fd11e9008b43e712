"""Files of lines are read whole, in bounded memory, and what cannot be read is said."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from stepwell.cli.neutral_form import files
from stepwell.cli.neutral_form.files import Line, LineFile, Unreadable, has_event
from tests.stepwell.cli.cli_support import start, write_lines


def read_into(found: list[Line], file: LineFile) -> None:
    while lines := file.next_lines():
        found += lines


def lines_of(path: Path) -> list[Line]:
    found: list[Line] = []
    with LineFile(path) as file:
        read_into(found, file)
        assert file.position == file.size
    return found


@pytest.mark.parametrize("packed", [False, True])
def test_lines_keep_their_numbers_past_blank_ones(tmp_path: Path, packed: bool) -> None:
    data = b'\xef\xbb\xbf{"a": 1}\n\n  \r\n{"b": 2}\r\nlast'
    path = tmp_path / "named-like-nothing"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert lines_of(path) == [Line(1, b'{"a": 1}'), Line(4, b'{"b": 2}'), Line(5, b"last")]


def test_many_lines_come_in_portions(tmp_path: Path) -> None:
    path = tmp_path / "many"
    path.write_bytes(b"".join(b"%d\n" % number for number in range(10_000)))
    with LineFile(path) as file:
        first = file.next_lines()
    assert 0 < len(first) < 10_000
    assert [line.number for line in lines_of(path)] == list(range(1, 10_001))


def test_a_line_without_end_is_skipped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 2**20)
    path = tmp_path / "long"
    path.write_bytes(b"a\n" + b"x" * (5 * 2**20) + b"\nb\n")
    first, long, last = lines_of(path)
    assert (first, last) == (Line(1, b"a"), Line(3, b"b"))
    assert long.number == 2
    assert long.problem == "longer than 1 MiB"


def test_a_gzip_stream_that_is_cut_off_gives_what_came_before_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    whole = gzip.compress(b"".join(b"line %d\n" % number for number in range(50_000)))
    path.write_bytes(whole[: len(whole) // 2])
    found: list[Line] = []
    with LineFile(path) as file:
        for _ in range(2):  # it stays so
            with pytest.raises(Unreadable, match="cannot be read beyond line"):
                read_into(found, file)
    assert 1_000 < len(found) < 50_000
    assert found[-1].number == len(found)


def test_a_file_has_an_event_or_not(tmp_path: Path) -> None:
    assert has_event(write_lines(tmp_path / "one", ["nonsense", '{"event": "step"}', start()]))
    assert not has_event(write_lines(tmp_path / "none", ["nonsense", '{"event": "step"}', '{"query": 1}']))
    assert not has_event(write_lines(tmp_path / "empty", []))
    with pytest.raises(Unreadable, match="No such file"):
        has_event(tmp_path / "absent")
    with pytest.raises(Unreadable, match="directory"):
        has_event(tmp_path)
