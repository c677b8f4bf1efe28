"""What a server has imported ahead, as its forks see it: not there until they import it, and then as it is.

An app may have a module of its own under the name of one that the server knows, such as ``datasets``: it must
find its own, as in a process that has imported nothing.
"""

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Modules = dict[str, ModuleType]


class Ahead(MetaPathFinder, Loader):
    """Hides modules, and gives them back where an import would find the same files.

    Parameters
    ----------
    known : iterable of str
        Modules whose packages stay as they are: those that Flower's own command has imported, too.
    """

    def __init__(self, known: Iterable[str]) -> None:
        stay = {_top(name) for name in known}
        stay |= {name for name, module in sys.modules.items() if "." not in name and not _origin(module)}
        self._hidden: dict[str, Modules] = {}
        for name in [name for name in sys.modules if _top(name) not in stay]:
            self._hidden.setdefault(_top(name), {})[name] = sys.modules.pop(name)
        self._back: Modules = {}
        self._path = list(sys.path)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A way back for a hidden package; None where the search goes on."""
        if fullname not in self._hidden:
            return None
        # what comes back looks others up in sys.modules without an import: once the app's folder is on the
        # path, and the search tells the right thing, all of it is there
        for name in [fullname, *(list(self._hidden) if sys.path != self._path else [])]:
            modules = self._hidden.pop(name, {})
            # not hidden any longer, so that this does not come back here
            found = importlib.util.find_spec(name) if modules and name not in sys.modules else None
            if found is not None and found.origin == _origin(modules[name]):
                self._back |= modules
        return ModuleSpec(fullname, self) if fullname in self._back else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module as it is."""
        module = self._back[spec.name]
        spec.loader_state = module.__spec__  # importlib puts its own in the place
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run again: the package's other modules are back."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state
        sys.modules.update(self._back)
        self._back = {}


def _top(name: str) -> str:
    return name.partition(".")[0]


def _origin(module: ModuleType) -> str | None:
    return getattr(getattr(module, "__spec__", None), "origin", None)
