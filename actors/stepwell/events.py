"""The events of a run, as `memory.episodic` records them: thirteen kinds in klieo's wire shapes, and `Unknown`.

await memory.episodic.record(run, events.ToolCall(name="search", args={"q": "x"}, result=events.ToolOk([1, 2])))
"""

from __future__ import annotations

from stepwell.model.run_event import BusCausalLink as BusCausalLink
from stepwell.model.run_event import BusPublish as BusPublish
from stepwell.model.run_event import BusReceive as BusReceive
from stepwell.model.run_event import Completed as Completed
from stepwell.model.run_event import Failed as Failed
from stepwell.model.run_event import LlmCall as LlmCall
from stepwell.model.run_event import MemoryRecall as MemoryRecall
from stepwell.model.run_event import Ops as Ops
from stepwell.model.run_event import RunAttributed as RunAttributed
from stepwell.model.run_event import RunEvent as RunEvent
from stepwell.model.run_event import RunOrigin as RunOrigin
from stepwell.model.run_event import Started as Started
from stepwell.model.run_event import SummaryCheckpoint as SummaryCheckpoint
from stepwell.model.run_event import ToolCall as ToolCall
from stepwell.model.run_event import ToolErr as ToolErr
from stepwell.model.run_event import ToolOk as ToolOk
from stepwell.model.run_event import ToolResult as ToolResult
from stepwell.model.run_event import Unknown as Unknown
from stepwell.model.run_event_wire import from_json as from_json
from stepwell.model.run_event_wire import to_json as to_json
