"""Settings of a memory. Every one of them has an effect; an unknown name is refused with the nearest match."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from stepstore.log.key_provider import KeyProvider
from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model.limits import Limits
from stepwell.model.message import Oversize, TokenCounter, chars_over_4
from stepwell.model.redaction import Redactor
from stepwell.model.retention import EVICTIONS, Eviction
from stepwell.runtime.embedding import Embedder

T = TypeVar("T", bound=type)
OVERSIZE = get_args(Oversize)


def _refuse_unknown_names(cls: T) -> T:
    """Make a keyword-only dataclass refuse unknown names with `InvalidInput` and the nearest name it knows."""
    initialise: Callable[..., None] = cls.__init__  # type: ignore[misc]
    known = [item.name for item in fields(cls)]

    @functools.wraps(initialise)
    def checked(self: object, *args: Any, **settings: Any) -> None:
        if args:
            raise InvalidInput(f"{cls.__name__}: settings are given by name")
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
                raise InvalidInput(f"{cls.__name__}: there is no setting {name!r}; {hint}")
        initialise(self, **settings)

    cls.__init__ = checked  # type: ignore[misc]
    return cls


def _require(name: str, value: object, kind: type | tuple[type, ...], what: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InvalidInput(f"{name}: must be {what}, not {value!r}")


@_refuse_unknown_names
@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """When steps that nobody waits for go to the log: after `max_batch_size` of them, or `flush_interval_ms` after the
    first. With `auto_flush` off only a waiter, a completion or 4 MiB make a batch go. A waiter never waits for these.
    """

    max_batch_size: int = 50
    flush_interval_ms: float = 50
    auto_flush: bool = True

    def __post_init__(self) -> None:
        _require("max_batch_size", self.max_batch_size, int, "a whole number")
        check.check_number(self.max_batch_size, "max_batch_size", minimum=1)
        check.check_number(self.flush_interval_ms, "flush_interval_ms", minimum=0)
        _require("auto_flush", self.auto_flush, bool, "True or False")

    @classmethod
    def high_frequency(cls) -> BatchConfig:
        """20 steps or 2 seconds."""
        return cls(max_batch_size=20, flush_interval_ms=2_000)

    @classmethod
    def low_frequency(cls) -> BatchConfig:
        """100 steps or 10 seconds."""
        return cls(max_batch_size=100, flush_interval_ms=10_000)

    @classmethod
    def manual(cls) -> BatchConfig:
        """Nothing goes by itself before there are 4 MiB of it."""
        return cls(auto_flush=False)


@_refuse_unknown_names
@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Settings of `open_memory`.

    `durability`: whether `log_step` returns when a step is accepted ("receipt") or on the medium ("commit").
    `mailbox_size`: steps waiting per episode (and 4 MiB, whichever first) before `log_step` waits.
    `idle_seconds`: an episode that nobody has used for so long leaves memory (what is not yet stored goes to the log
    first), and comes back from the log when it is used again. Reading does not count as use, and wakes nothing.
    `max_live_episodes`: with more than so many awake, the least recently used go to sleep early. It is a target and no
    limit: no caller is refused or waits for it, and an episode that is in use while it should go stays. So for a moment
    there may be more, by those that store their last steps, are ending, being deleted or rebuilt, and as long as more
    than so many are in use all the time. Then a use costs a wake: set it above the number of episodes busy at once.
    With manual batches an episode that holds unsent steps does not go to sleep at all.
    `resume_open`: wake the episodes that opening finds without an ending, one after another in the background, the
    latest opened first, up to `max_live_episodes`.
    `grace_seconds`: how long closing may take after an exception or a cancellation.
    `tail`: what opening does with suspected rot in the last commit group: refuse ("strict") or give it up ("cut").
    `keys_kept`: idempotency keys remembered per episode. `on_failure`: when the log is lost, raise on leaving
    `open_memory` ("raise"), or cancel its body at once as well ("cancel"). `segment_bytes`: size of one log file.
    `align`: 0, 512 or 4096, for media that may change bytes next to those written.
    `compression`: "none", or "zstd" (extra `stepwell[zstd]`) for batches that get smaller by it.
    `key_provider`: wraps the AES-256-GCM key that each episode is encrypted with (extra `stepwell[encryption]`), see
    `KeyProvider`; None stores in clear. Deleting an episode destroys its key.
    `scrub_bytes_per_second`, `scrub_every_seconds`: how fast, and how often, old log files are read again in the
    background and checked; 0 is never.
    `max_episodes`: with more than so many, as many ended ones are deleted in the background as are too many, by
    `eviction`: the least relevant first ("relevance", see `stepwell.learning.retention`), or those whose last event is
    the oldest ("lru"; reading is no event). Open and archived ones count, and are never deleted. It is enforced some
    seconds late, and holds nobody up. None is no limit; `Memory.retain` deletes by age, outcome and reward.
    `audit`: a file that gets a JSON line for every event of an episode that is no step (see `runtime.audit`); None is
    none. If it cannot be written, `health` says so, and nothing else is held up.
    `embedder`: gives vectors for a list of texts, so that facts and episodes are found by what they mean as well; see
    `Embedder` and `stepwell.embedding`. A plain function runs in a worker thread, an async one is awaited. None: by
    words alone.
    `redact`: a plain function that gets the place and the text of everything of steps, starts, endings and changes,
    and gives what is to be stored, for instance `default_redactor`. If it raises, the call is `Rejected`. None costs
    nothing.
    """

    durability: Literal["receipt", "commit"] = "receipt"
    batch: BatchConfig = field(default_factory=BatchConfig)
    mailbox_size: int = 64
    idle_seconds: float = 120
    max_live_episodes: int = 10_000
    resume_open: bool = False
    grace_seconds: float = 5
    limits: Limits = field(default_factory=Limits)
    tail: Literal["strict", "cut"] = "strict"
    keys_kept: int = 1_024
    on_failure: Literal["raise", "cancel"] = "raise"
    segment_bytes: int = 64 * 1024 * 1024
    align: int = 0
    compression: Literal["none", "zstd"] = "none"
    key_provider: KeyProvider | None = None
    scrub_bytes_per_second: int = 4 * 1024 * 1024
    scrub_every_seconds: float = 86_400
    max_episodes: int | None = None
    eviction: Eviction = "relevance"
    audit: str | os.PathLike[str] | None = None
    redact: Redactor | None = None
    embedder: Embedder | None = None
    token_counter: TokenCounter = chars_over_4
    oversize: Oversize = "strict"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("durability", ("receipt", "commit")),
            ("tail", ("strict", "cut")),
            ("on_failure", ("raise", "cancel")),
            ("align", (0, 512, 4096)),
            ("compression", ("none", "zstd")),
            ("oversize", OVERSIZE),
            ("eviction", EVICTIONS),
        ):
            value = getattr(self, name)
            if type(value) is not type(allowed[0]) or value not in allowed:
                raise InvalidInput(f"{name}: must be one of {', '.join(map(repr, allowed))}, not {check.shown(value)}")
        _require("batch", self.batch, BatchConfig, "a BatchConfig")
        if self.key_provider is not None and not isinstance(self.key_provider, KeyProvider):
            raise InvalidInput(f"key_provider: must have wrap and unwrap, not be a {type(self.key_provider).__name__}")
        if self.audit is not None:
            _require("audit", self.audit, (str, os.PathLike), "the path of a file, or None")
        if not callable(self.token_counter) or inspect.iscoroutinefunction(self.token_counter):
            raise InvalidInput(f"token_counter: must be a plain function, not {self.token_counter!r}")
        if self.redact is not None and (not callable(self.redact) or inspect.iscoroutinefunction(self.redact)):
            raise InvalidInput(f"redact: must be a plain function or None, not {self.redact!r}")
        if self.embedder is not None and not callable(self.embedder):
            raise InvalidInput(f"embedder: must be a function or None, not {self.embedder!r}")
        _require("limits", self.limits, Limits, "a Limits")
        for name, minimum in (
            ("mailbox_size", 1),
            ("max_live_episodes", 1),
            ("keys_kept", 0),
            ("segment_bytes", 64 * 1024),
            ("scrub_bytes_per_second", 0),
        ):
            check.check_number(getattr(self, name), name, minimum=minimum, whole=True)
        if self.max_episodes is not None:
            check.check_number(self.max_episodes, "max_episodes", minimum=1, whole=True)
        _require("resume_open", self.resume_open, bool, "True or False")
        for name in ("grace_seconds", "idle_seconds", "scrub_every_seconds"):
            check.check_number(getattr(self, name), name, minimum=0)
