"""Whether a call comes from the Trio run that opened the memory."""

from __future__ import annotations

from threading import get_ident as get_ident

import trio

from stepwell.errors import WrongLoop


def wrong_loop() -> WrongLoop:
    """The error for a call from anywhere else."""
    return WrongLoop(
        "this memory belongs to the Trio run that opened it, and was used from elsewhere; in asyncio open it with "
        "stepwell.aio, in plain code and for many threads with stepwell.sync"
    )


async def checkpoint() -> None:
    """`trio.lowlevel.checkpoint`. Raises: `WrongLoop` outside Trio, where that cannot be."""
    try:
        await trio.lowlevel.checkpoint()
    except RuntimeError:  # by Trio, or by another loop about what Trio yields to it
        raise wrong_loop() from None
