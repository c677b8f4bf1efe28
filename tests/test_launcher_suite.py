from functools import partial

import pytest

from flower_hpc.launchers import LocalLauncher
from launcher_suite import LauncherSuite


class TestLocalLauncher(LauncherSuite):
    @pytest.fixture
    def make(self, tmp_path):
        return partial(LocalLauncher, tmp_path / "memory.json")
