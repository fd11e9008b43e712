"""What a journal tells of itself as it happens, to one listener or to nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

NoticeKind: TypeAlias = Literal[
    "log_full", "log_has_room", "slow_sync", "service_failed", "service_restarted", "service_parked"
]
Listener: TypeAlias = Callable[[NoticeKind, str | None, str], None]
"""Gets the kind, the name of the service if it is about one, and a sentence. It must not raise, and cannot wait."""


class Notices:
    """Shared by a journal and its parts. `listener`: who is told, in the teller's turn; None is nobody."""

    __slots__ = ("listener",)

    def __init__(self) -> None:
        self.listener: Listener | None = None

    def tell(self, kind: NoticeKind, detail: str, service: str | None = None) -> None:
        """Tell the listener, if there is one."""
        if self.listener is not None:
            self.listener(kind, service, detail)
