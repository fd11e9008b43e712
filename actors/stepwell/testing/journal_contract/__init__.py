"""The tests that every `Journal` has to pass, as they stand (`stepstore.journal.contract` says what it promises).

    class TestMyJournal(JournalContract):
        def new_place(self, path: pathlib.Path) -> JournalPlace:
            return JournalPlace(lambda: MyJournal(path))

General layout: `place` (where the journals under test live, and small helpers), `cancelling`, and one module for each
part of the contract: `appending`, `reading`, `following`, `closing`, `reopening`, `rotating`, `deleting`, `snapshots`,
`cursors`, `plain_list`. Needs pytest and pytest-trio: `pip install 'stepwell[testing]'`.

A journal that keeps nothing skips what is about the next opening; one that cannot tell what a power cut would leave
skips what is about that. A test that looks at the text of an error looks for the one word that says what is wrong.
"""

from __future__ import annotations

from stepwell.testing.needs_pytest import require_pytest

require_pytest(__name__)

import pytest  # noqa: E402

_PARTS = (
    *("place", "appending", "reading", "following", "closing", "reopening", "rotating", "deleting", "snapshots"),
    *("cursors", "plain_list", "cancelling"),
)
# Before they are imported: then a failed assertion in them shows both sides, as one in a test file does.
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from stepwell.testing.journal_contract.appending import AppendingContract  # noqa: E402
from stepwell.testing.journal_contract.closing import ClosingContract  # noqa: E402
from stepwell.testing.journal_contract.cursors import CursorsContract  # noqa: E402
from stepwell.testing.journal_contract.deleting import DeletingContract  # noqa: E402
from stepwell.testing.journal_contract.following import FollowingContract  # noqa: E402
from stepwell.testing.journal_contract.place import JournalPlace as JournalPlace  # noqa: E402
from stepwell.testing.journal_contract.plain_list import PlainListContract  # noqa: E402
from stepwell.testing.journal_contract.reading import ReadingContract  # noqa: E402
from stepwell.testing.journal_contract.reopening import ReopeningContract  # noqa: E402
from stepwell.testing.journal_contract.rotating import RotatingContract  # noqa: E402
from stepwell.testing.journal_contract.snapshots import SnapshotsContract  # noqa: E402


@pytest.mark.trio
class JournalContract(
    AppendingContract,
    ReadingContract,
    FollowingContract,
    ClosingContract,
    ReopeningContract,
    RotatingContract,
    DeletingContract,
    SnapshotsContract,
    CursorsContract,
    PlainListContract,
):
    """Derive a class named `Test…` from this, with `new_place`; pytest runs the contract for it."""
