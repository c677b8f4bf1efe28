"""What happens in a run: written once as JSON lines, read by everything that shows it."""

from .events import EventLog, follow_events, read_events
from .report import save_result, summarise

__all__ = ["EventLog", "follow_events", "read_events", "save_result", "summarise"]
