"""Redaction: what must not be stored is replaced before anything is encoded."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import msgspec

from stepwell.errors import Rejected
from stepwell.model.outcome import TaskOutcome
from stepwell.model.step import ExecutionStep

Redactor: TypeAlias = Callable[[str, str], str]
"""Given where a text stands (`step.parameters.headers.Authorization`) and the text, gives what is to be stored. Numbers
come as their text, and are replaced if that comes back changed."""
REDACTED = "[redacted]"
T = TypeVar("T")

_SECRET_NAME = re.compile(
    r"(password|passwd|pwd|passphrase|secrets?|apikeys?|accesskeys?|secretkeys?|privatekeys?|accesskeyid|token"
    r"|credentials?|authorization|cookies?)$"
)
_SEPARATORS = re.compile(r"[-_ ]|\[\d+\]$")
_SECRETS = re.compile(
    r"""
    -----BEGIN[ A-Z]*PRIVATE\ KEY(?:\ BLOCK)?-----.*?(?:-----END[ A-Z]*PRIVATE\ KEY(?:\ BLOCK)?-----|\Z)
    | \b[spr]k-(?=[A-Za-z_-]{0,80}[0-9])(?:[A-Za-z0-9]+[-_]){0,3}[A-Za-z0-9_-]{16,}   # OpenAI, Anthropic; not words
    | \b[spr]k_(?:(?:live|test)_)?[A-Za-z0-9]{16,}                    # Stripe; no primary key of a database
    | \b(?:hf|npm)_[A-Za-z0-9]{30,} | \bpypi-[A-Za-z0-9_-]{50,}       # Hugging Face, npm, PyPI
    | \bgh[pousr]_[A-Za-z0-9]{20,} | \bgithub_pat_[A-Za-z0-9_]{20,}   # GitHub
    | \bglpat-[A-Za-z0-9_-]{16,}                                      # GitLab
    | \b(?:xox[abcdeoprs]|xapp)-[A-Za-z0-9-]{10,}                     # Slack
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                                   # AWS
    | \bAIza[A-Za-z0-9_-]{35}                                         # Google
    | \beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+    # JSON Web Token
    | (?<=[Bb]earer\ )[A-Za-z0-9._~+/-]{16,}=*
    | (?<=uthorization:\ [Bb]asic\ )[A-Za-z0-9+/]+=*
    | (?<=://)[^/\s:@]*:[^/\s@]+(?=@)                                 # user:password in a URL
    """,
    re.VERBOSE | re.DOTALL,
)


def default_redactor(path: str, text: str) -> str:
    """Replace what stands under a name that says it is secret (`api_key`, `dbPassword`, …) at whatever depth, and what
    looks like a token or a private key anywhere. What looks like nothing of the kind is not found."""
    if any(_SECRET_NAME.search(_SEPARATORS.sub("", name).lower()) for name in path.split(".")):
        return REDACTED
    return _SECRETS.sub(REDACTED, text)


class Redaction:
    """A redactor applied to steps, endings and other values, which were checked before. `count`: texts replaced."""

    def __init__(self, redactor: Redactor):
        self._redactor = redactor
        self.count = 0

    def text(self, path: str, text: str) -> str:
        """One text as it is to be stored. Raises: `Rejected` if the redactor fails; its message holds nothing of it."""
        try:
            result = self._redactor(path, text)
        except Exception as error:
            raise Rejected(
                f"{path}: the redactor of MemoryConfig failed with {type(error).__name__}; nothing is stored"
            ) from error
        if not isinstance(result, str):
            raise Rejected(f"{path}: the redactor of MemoryConfig gave {type(result).__name__}, not text")
        if result != text:
            self.count += 1
        return result

    def value(self, path: str, value: Any) -> Any:
        """A JSON value as it is to be stored, keys as well. Raises: `Rejected`."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(path, value)
        if isinstance(value, dict):
            return self._object(path, value)
        if isinstance(value, list | tuple):
            return [self.value(f"{path}[{position}]", item) for position, item in enumerate(value)]
        shown = format(value, "d") if isinstance(value, int) and value.bit_length() <= 64 else repr(float(value))
        redacted = self.text(path, shown)
        return value if redacted == shown else redacted

    def _object(self, path: str, value: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, item in value.items():
            stored = wanted = self.text(f"{path} (a key)", name)
            number = 1
            while stored in result:
                number += 1
                stored = f"{wanted} ({number})"
            result[stored] = self.value(f"{path}.{name}", item)
        return result

    def fields(self, root: str, struct: T, names: tuple[str, ...]) -> T:
        """A struct with these fields redacted. Raises: `Rejected`."""
        changed = {name: self.value(f"{root}.{name}", getattr(struct, name)) for name in names}
        return msgspec.structs.replace(struct, **changed)  # type: ignore[type-var]

    def step(self, step: ExecutionStep) -> ExecutionStep:
        """A step as it is to be stored; its key and its numbers stay. Raises: `Rejected`."""
        redacted = self.fields("step", step, ("tool", "action", "parameters", "thought", "metadata"))
        if step.result is None:
            return redacted
        result = self.fields("step.result", step.result, step.result.__struct_fields__)
        return msgspec.structs.replace(redacted, result=result)

    def outcome(self, outcome: TaskOutcome) -> TaskOutcome:
        """How an episode ends, as it is to be stored. Raises: `Rejected`."""
        names = tuple(name for name in outcome.__struct_fields__ if name not in ("stopped_at_step", "cause"))
        return self.fields("outcome", outcome, names)
