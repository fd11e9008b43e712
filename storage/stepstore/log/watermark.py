"""The durable watermark: up to where everything is on the medium. Followers see nothing beyond it."""

from __future__ import annotations

import trio


class DurableWatermark:
    """`lsn`: the last record that is durable. Whoever moves it calls `tell` once the records can be read."""

    def __init__(self, lsn: int):
        self.lsn = lsn
        self._is_final = False
        self._waiting = trio.lowlevel.ParkingLot()

    def tell(self) -> None:
        """Wake whoever waits for more."""
        self._waiting.unpark_all()

    @trio.lowlevel.enable_ki_protection
    def end(self) -> None:
        """It moves no further: the writer has ended or failed."""
        self._is_final = True
        self._waiting.unpark_all()

    async def wait_beyond(self, lsn: int) -> bool:
        """Return True once the log is durable beyond `lsn`, False once it will never be (the writer has ended)."""
        await trio.lowlevel.checkpoint()
        while self.lsn <= lsn:
            if self._is_final:
                return False
            await self._waiting.park()
        return True
