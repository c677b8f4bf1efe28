"""Who may be asked now, and who is: idle nodes as the policies see them."""

from collections.abc import Sequence

from flwr.app import MessageType

from ...protocol import PROFILE_QUERY
from ..options import Settings
from .collect import Collector, Online
from .dispatch import Dispatcher
from .state import RunState

PROFILE_WAIT_S = 30.0


class Chooser:
    """Applies the selection policy to the nodes that are idle.

    Parameters
    ----------
    settings, state, collector, dispatcher
        Of the run.
    """

    def __init__(
        self, settings: Settings, state: RunState, collector: Collector, dispatcher: Dispatcher
    ) -> None:
        self._settings, self._state = settings, state
        self._collector, self._dispatcher = collector, dispatcher

    def candidates(self) -> list[Online]:
        """Idle nodes that meet the criteria, neither rest nor leave, and wait for no others; by name."""
        with self._collector.lock:
            seen, ledger, selection = self._state.situation(), self._state.ledger, self._settings.selection
            stay = [n for n in self._collector.idle() if not ledger.of(n.name).leaves]
            awake = [n for n in stay if not ledger.resting(n.name, seen.now)]
            free = [n for n in awake if not self._settings.work.holds(n.name, seen)]
            return sorted(selection.eligible(free, ledger), key=lambda n: (n.name, n.node_id))

    def ready(self, fewest: int) -> bool:
        """Whether a round may begin that needs at least ``fewest`` idle nodes."""
        under_way = self._settings.goes_on and self._collector.waiting(MessageType.TRAIN)
        enough = len(self.candidates()) >= fewest or bool(under_way)
        return enough and len(self._collector.online) >= max(self._settings.min_nodes, fewest)

    def shortage(self, fewest: int) -> str:
        """Why it may not."""
        idle, fit, online = len(self._collector.idle()), len(self.candidates()), len(self._collector.online)
        where = getattr(self._settings.selection, "where", "")
        may = f"meet {where!r}" if where else "may be asked"
        of_them = "" if fit == idle else f", {fit} of them {may}"
        need = f"{self._settings.min_nodes} online" + (f" and {fewest} idle" if fewest > 1 else "")
        after = f"after {self._settings.node_wait_s:g} s; needs {need}"
        return f"{online} nodes online, {idle} idle{of_them} {after}"

    def choose(self, nodes: Sequence[Online]) -> list[Online]:
        """The policy's choice among ``nodes``."""
        return self._settings.selection.choose(nodes, self._state.situation(), self._room())

    def spare(self) -> list[Online]:
        """Idle nodes that may be given more work in this round."""
        ledger, number = self._state.ledger, self._state.round
        if self._room() == 0:
            return []
        return [
            n
            for n in self.candidates()
            # not those that have just failed, or have no examples: they would be asked again and again
            if not ledger.suspect(n.name)
            and not (ledger.of(n.name).in_a_row and ledger.of(n.name).last_failed == number)
            and ledger.of(n.name).last_empty != number
        ]

    def ask_profiles(self) -> None:
        """Ask idle nodes that were never asked for their resources; in the first round wait for them."""
        settings, collector, clock = self._settings, self._collector, self._state.clock
        wanted = settings.selection.profiles or (settings.dropout and settings.dropout.profiles)
        if not wanted or not settings.profile_every:
            return
        first = self._state.round == 1
        if first:
            until = clock.now() + settings.node_wait_s
            collector.wait(lambda: len(collector.online) >= settings.min_nodes, until)
        if self._dispatcher.query(collector.idle()) and first:
            collector.wait(lambda: not collector.waiting(PROFILE_QUERY), clock.now() + PROFILE_WAIT_S)

    def _room(self) -> int | None:
        """How many more may be under way; None where the selection's own number counts."""
        if not self._settings.refill:
            return None
        most = self._settings.concurrency
        if most is None:
            most = self._settings.selection.count(len(self._collector.online), None)
        return max(0, most - len(self._collector.waiting(MessageType.TRAIN)))
