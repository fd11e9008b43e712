"""What runs have used: calls, tokens, latency and cost, from their events and a table of prices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model.run_event import LlmCall, RunEvent, Started, SummaryCheckpoint, ToolCall

_DATE = re.compile(r"[-@](\d{4}-?\d{2}-?\d{2})$")


class Price(msgspec.Struct, frozen=True):
    """What a model costs per 1,000 tokens of the prompt and of the completion, in a currency of your choice."""

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        check.check_number(self.prompt, "price.prompt", minimum=0)
        check.check_number(self.completion, "price.completion", minimum=0)


class Usage(msgspec.Struct, kw_only=True):
    """Sums. `llm_calls`, `tool_calls`, `summaries`: how many; `tokens`: of LLM calls and summaries together;
    `prompt_tokens`, `completion_tokens`: where calls tell them; `llm_latency_ms`: of LLM calls and summaries. `cost`:
    of the calls whose price is known; `unpriced_calls`: LLM calls it says nothing of, since the provider, the model,
    the numbers of tokens or the price are not known."""

    llm_calls: int = 0
    tool_calls: int = 0
    summaries: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    llm_latency_ms: int = 0
    cost: float = 0.0
    unpriced_calls: int = 0


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """`total`, and the same by run, by agent ("" where no event tells it) and by (provider, model), which are "" where
    a call does not tell them. Tool calls and summaries belong to no model."""

    total: Usage
    by_run: dict[str, Usage]
    by_agent: dict[str, Usage]
    by_model: dict[tuple[str, str], Usage]


def project_usage(
    runs: Iterable[tuple[str, Iterable[RunEvent]]], prices: Mapping[tuple[str, str], Price]
) -> UsageReport:
    """Fold the events of runs. Works on any part of a run. Raises: `InvalidInput` (no table of prices)."""
    _check_prices(prices)
    report = UsageReport(total=Usage(), by_run={}, by_agent={}, by_model={})
    for run, events in runs:
        found = list(events)
        agent = next((event.agent for event in found if isinstance(event, Started)), "")
        sums = [
            report.total,
            report.by_run.setdefault(run, Usage()),
            report.by_agent.setdefault(agent, Usage()),
        ]
        for event in found:
            if isinstance(event, LlmCall):
                model = (event.provider or "", event.model or "")
                for usage in (*sums, report.by_model.setdefault(model, Usage())):
                    _add_llm_call(usage, event, prices)
            elif isinstance(event, ToolCall):
                for usage in sums:
                    usage.tool_calls += 1
            elif isinstance(event, SummaryCheckpoint):
                for usage in sums:
                    usage.summaries += 1
                    usage.tokens += event.tokens
                    usage.llm_latency_ms += event.latency_ms
    return report


def _add_llm_call(usage: Usage, call: LlmCall, prices: Mapping[tuple[str, str], Price]) -> None:
    usage.llm_calls += 1
    usage.tokens += call.tokens
    usage.llm_latency_ms += call.latency_ms
    usage.prompt_tokens += call.prompt_tokens or 0
    usage.completion_tokens += call.completion_tokens or 0
    price = None if call.provider is None or call.model is None else price_of(prices, call.provider, call.model)
    if price is None or call.prompt_tokens is None or call.completion_tokens is None:
        usage.unpriced_calls += 1
    else:
        usage.cost += (call.prompt_tokens * price.prompt + call.completion_tokens * price.completion) / 1000


def price_of(prices: Mapping[tuple[str, str], Price], provider: str, model: str) -> Price | None:
    """The price of a model: that of its name, of its name without a date at the end (`gpt-4o-2024-08-06`), or of the
    longest name in the table that it begins with, up to a hyphen (its family)."""
    names = [model, _DATE.sub("", model)]
    for name in names:
        if (found := prices.get((provider, name))) is not None:
            return found
    parts = names[-1].split("-")
    for count in range(len(parts) - 1, 0, -1):
        if (found := prices.get((provider, "-".join(parts[:count])))) is not None:
            return found
    return None


def _check_prices(prices: object) -> None:
    if not isinstance(prices, Mapping):
        raise InvalidInput(f"prices: must be a map from (provider, model) to Price, not {type(prices).__name__}")
    for key, price in prices.items():
        is_key = isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, str) for part in key)
        if not is_key or not isinstance(price, Price):
            raise InvalidInput(f"prices: must be a map from (provider, model) to Price; see {check.shown(key)}")
