"""The fuzzer objects to undeclared errors, growth and hangs, makes what fails smaller, and its inputs reach far."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstore.errors import CorruptLog
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log import verify
from stepstore.log.files import FileSystem
from stepstore.log.verify_report import VerifyReport
from tests.crash import fuzz, hostile, readback, reseal, survival
from tests.crash.dice import BytesDice, RandomDice, hostile_number, pick
from tests.crash.fuzz import Hunt
from tests.crash.hostile import CHANGES, Draft, Input, bases, compose
from tests.crash.specimen import Specimen, disk_with, sealed, several_lives, unclean_logs
from tests.crash.survival import GROWTH_BYTES, StrictFiles, minimise, pack, peak_of, survive, unpack
from tests.crash.sweep import Tally
from tests.stepstore.log_lab import LOG, tree

SOUND = Input(bases()[0], locked=False)
FOUND = Path(__file__).with_name("fuzz_found.txt").read_text(encoding="ascii").split()
"""Inputs with which a million found a mistake, each a word to replay."""
LOGS = [sealed(1, size=8192), several_lives(1, size=8192), *unclean_logs(1)]


@pytest.fixture(autouse=True, scope="module")
def nothing_old_is_collected() -> Iterator[None]:
    """Going through all that the tests before have left takes the garbage collector longer than an input may take."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


# ---- the limits ------------------------------------------------------------------------------------------------------


def test_sound_logs_survive_and_are_readable() -> None:
    for image in bases():
        survived = survive(Input(image, locked=False))
        assert not survived.failure
        assert survived.outcomes == ("verify: nothing", "read-only: readable", "strict: readable", "cut: readable")


def test_a_locked_log_is_refused_with_log_locked() -> None:
    outcomes = survive(SOUND._replace(locked=True)).outcomes
    assert outcomes[1:] == ("read-only: readable", "strict: refused with LogLocked", "cut: refused with LogLocked")


def verifying(monkeypatch: pytest.MonkeyPatch, does: object) -> None:
    def verify_log(path: str, *, files: FileSystem) -> VerifyReport:
        assert callable(does)
        does()
        return VerifyReport()

    monkeypatch.setattr(verify, "verify_log", verify_log)


def test_an_undeclared_error_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    verifying(monkeypatch, lambda: [][7])
    survived = survive(SOUND)
    assert survived.signature.startswith("IndexError")
    assert "out of range" in survived.failure


def test_a_declared_error_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    verifying(monkeypatch, mock.Mock(side_effect=CorruptLog("declared")))
    survived = survive(SOUND)
    assert not survived.signature
    assert survived.outcomes[0] == "verify: CorruptLog"


def test_growth_beyond_the_limit_is_a_failure_and_less_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    verifying(monkeypatch, lambda: bytearray(2 * GROWTH_BYTES))
    assert survive(SOUND).signature.startswith("MemoryError")
    verifying(monkeypatch, lambda: bytearray(GROWTH_BYTES // 2))
    assert not survive(SOUND).signature
    assert peak_of(SOUND) > GROWTH_BYTES // 2


def test_the_limits_are_lifted_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    survive(SOUND)
    assert len(bytearray(2 * GROWTH_BYTES)) == 2 * GROWTH_BYTES


def test_a_loop_without_end_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def for_ever() -> None:
        while True:
            pass

    verifying(monkeypatch, for_ever)
    survived = survive(SOUND, 0.05)
    assert survived.is_slow
    assert "TooSlow" in survived.failure


def test_a_loop_over_checkpoints_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never_empty(*_args: object) -> list[object]:
        import trio

        await trio.lowlevel.checkpoint()
        return [None]

    slices = mock.Mock(next_slice=never_empty)
    monkeypatch.setattr(SegmentLogJournal, "read", lambda *_args: slices)
    survived = survive(SOUND, 0.05)
    assert survived.signature == "too slow: while part := await slices.next_slice():"


def test_a_log_that_opens_once_and_never_again_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = readback.read_writable
    openings = 0

    async def once(*args: object) -> object:
        nonlocal openings
        openings += 1
        reading = await whole(*args)  # type: ignore[arg-type]
        if openings == 2:
            reading.refused = CorruptLog("suddenly", row=7)
        return reading

    monkeypatch.setattr(survival, "read_writable", once)
    assert survive(SOUND).signature == "opening it again is refused by row 7"


@pytest.mark.parametrize(
    ("offset", "size", "error"),
    [(-1, 1, OverflowError), (2**63, 1, OverflowError), (0, 2**63, OverflowError), (0, 2**32, MemoryError)],
)
def test_the_file_layer_takes_no_argument_that_the_real_one_would_not(
    offset: int, size: int, error: type[Exception]
) -> None:
    file = StrictFiles().open("/file", create=True)
    assert file.read(0, 10) == b""
    with pytest.raises(error):
        file.read(offset, size)


# ---- failures are made smaller, and can be repeated ------------------------------------------------------------------


def test_an_input_survives_being_packed() -> None:
    for number in range(20):
        what = compose(RandomDice(number))
        assert unpack(pack(what)) == what
    assert len(pack(SOUND)) < 20_000


def test_a_failing_input_is_minimised_to_what_makes_it_fail() -> None:
    data = random.Random(1).randbytes(3000)
    image = {LOG: None, f"{LOG}/a": data, f"{LOG}/b": data, f"{LOG}/LOCK": b""}

    def fails(what: Input) -> bool:
        content = what.image.get(f"{LOG}/b") or b""
        return len(content) > 100 and content[100] == data[100]

    small = minimise(Input(image, locked=True), fails, seconds=60)
    assert small == Input({LOG: None, f"{LOG}/b": bytes(100) + data[100:101]}, locked=False)


def fails_on_a_long_format(path: str, *, files: FileSystem) -> VerifyReport:
    found = files.stat(f"{LOG}/FORMAT")
    if found is not None and found.size > 95:
        raise ZeroDivisionError("planted")
    return VerifyReport()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waiting for what hangs, nor for the smallest input."""
    monkeypatch.setattr(fuzz, "CPU_SECONDS", 0.2)
    monkeypatch.setattr(fuzz, "MINIMISE_SECONDS", 2.0)


@pytest.mark.usefixtures("hurried")
def test_a_planted_mistake_is_found_minimised_and_can_be_replayed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "verify_log", fails_on_a_long_format)
    monkeypatch.setattr(fuzz, "MINIMISE_SECONDS", 30.0)  # it must get to its end, on a busy machine too
    hunt = Hunt(Tally())
    hunt.with_hypothesis(600, seed=3)
    planted = [what for what in hunt.tally.violations if what.startswith("ZeroDivisionError")]
    assert len(planted) == 1
    (place,) = hunt.tally.places[planted[0]]
    word = place.split("--replay '")[1].rstrip("'")
    # The least is 96; where hypothesis began decides whether cutting bytes away gets stuck a little above it.
    assert 96 <= len(unpack(word).image[f"{LOG}/FORMAT"] or b"") < 112
    assert fuzz.main(["--replay", word]) == 1
    assert "planted" in capsys.readouterr().out
    monkeypatch.undo()
    assert fuzz.main(["--replay", word]) == 0
    assert "strict: refused by row 15" in capsys.readouterr().out


def test_a_known_failure_is_counted_and_not_minimised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    verifying(monkeypatch, lambda: [][7])
    hunt = Hunt(Tally())
    hunt.try_one(SOUND)
    hunt.try_one(SOUND)
    assert hunt.tally.violations.total() == 2
    assert sum(map(len, hunt.tally.places.values())) == 1


# ---- the inputs ------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=400))
def test_any_bytes_make_an_input_and_the_same_bytes_the_same(data: bytes) -> None:
    what = compose(BytesDice(data))
    assert compose(BytesDice(data)) == what
    assert tree(disk_with(what.image)).keys() | {"/"} >= {path for path in what.image if path.startswith(LOG)}
    assert all(len(content or b"") <= hostile.LARGEST_FILE * 2 for content in what.image.values())


def test_dice_of_bytes_reach_every_side() -> None:
    sides = {BytesDice(bytes([n])).below(200) for n in range(256)}
    assert sides == set(range(200))
    assert BytesDice(b"").below(1) == 0
    assert BytesDice(b"\xff\xff\xff").below(70_000) < 70_000
    assert all(0 <= hostile_number(RandomDice(n), 7, 16) < 2**16 for n in range(500))


@pytest.mark.parametrize("change", sorted({change.__name__ for change in CHANGES}))
def test_every_change_changes_something(change: str) -> None:
    change_it = getattr(hostile, change)
    changed = 0
    for number in range(60):
        dice = RandomDice(number)
        before = pick(dice, bases())
        draft: Draft = dict(before)
        change_it(dice, draft)
        changed += draft != before
    assert changed >= (6 if change == "change_manifest" else 20)  # only some logs have one


def test_the_inputs_reach_far() -> None:
    seen: Counter[str] = Counter()
    for number in range(500):
        seen.update(survive(compose(RandomDice(number)), 0.5).outcomes)
    for outcome in [
        *("verify: problem", "verify: note", "verify: nothing", "strict: readable", "strict: damaged in some streams"),
        *(f"strict: refused by row {row}" for row in (2, 5, 7, 13, 15, 16)),
        *("strict: refused with RecoveryFailed", "strict: refused with LogLocked"),
    ]:
        assert seen[outcome], f"none of 500 inputs leads to {outcome!r}"


def spoilt(log: Specimen, path: str, at: int) -> dict[str, bytes | None]:
    data = bytearray(log.files[path])
    data[at] ^= 0xFF
    return {**log.image, path: bytes(data)}


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.name)
def test_sealing_anew_changes_nothing_in_what_is_sound(log: Specimen) -> None:
    for path, content in log.files.items():
        data = bytearray(content)
        if path.endswith(".seg"):
            reseal.reseal(data)
        elif path.endswith(".idx"):
            reseal.reseal_sidecar(data)
        assert data == content, path
    segments = [bytearray(log.files[path]) for path in log.segments]
    reseal.relink(segments)
    assert [bytes(data) for data in segments] == [log.files[path] for path in log.segments]


def test_sealed_anew_a_changed_payload_passes_every_checksum() -> None:
    log = LOGS[0]
    path = log.segments[0]
    frame = log.frames[path][0]
    image = spoilt(log, path, frame.end - 1)
    assert survive(Input(image, False)).outcomes[0] == "verify: problem"
    segments = [bytearray(image[path] or b"") for path in log.segments]
    reseal.relink(segments)
    image.update(zip(log.segments, map(bytes, segments), strict=True))
    survived = survive(Input(image, False))
    assert survived.outcomes == ("verify: nothing", "read-only: readable", "strict: readable", "cut: readable")


@pytest.mark.usefixtures("hurried")
def test_a_sample_survives() -> None:
    hunt = Hunt(Tally())
    for number in range(300):
        hunt.try_one(compose(RandomDice(number)))
    assert not hunt.tally.violations, hunt.tally.places


@pytest.mark.parametrize("word", FOUND, ids=range(len(FOUND)))
def test_what_the_long_form_has_found_survives(word: str) -> None:
    survived = survive(unpack(word))
    assert not survived.signature, survived.failure
