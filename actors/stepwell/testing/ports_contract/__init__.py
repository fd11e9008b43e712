"""The rules that every implementation of the ports has to keep, as tests; before and after reopening.

    class TestMyPorts(PortsContract):
        def new_place(self, path: pathlib.Path) -> PortsPlace:
            return PortsPlace(lambda: open_my_ports(path))

where `open_my_ports` gives an async context manager whose value has `short_term`, `long_term` and `episodic`. One kind
of memory alone has its own contract: `ShortTermContract`, `LongTermContract`, `EpisodicContract`. The rules are ours
(those of klieo's own suite were not to be had), from the text of its interfaces and what its backends do.

General layout: `place` (where the ports under test live), and a module for each port. Needs pytest and pytest-trio:
`pip install 'stepwell[testing]'`.
"""

from __future__ import annotations

from stepwell.testing.needs_pytest import require_pytest

require_pytest(__name__)

import pytest  # noqa: E402

# Before they are imported: then a failed assertion in them shows both sides, as one in a test file does.
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("place", "short_term", "long_term", "episodic")))

from stepwell.testing.ports_contract.episodic import EpisodicContract as EpisodicContract  # noqa: E402
from stepwell.testing.ports_contract.long_term import LongTermContract as LongTermContract  # noqa: E402
from stepwell.testing.ports_contract.place import Ports as Ports  # noqa: E402
from stepwell.testing.ports_contract.place import PortsPlace as PortsPlace  # noqa: E402
from stepwell.testing.ports_contract.short_term import ShortTermContract as ShortTermContract  # noqa: E402


@pytest.mark.trio
class PortsContract(ShortTermContract, LongTermContract, EpisodicContract):
    """Derive a class named `Test…` from this, with `new_place`; pytest runs the contract for it."""
