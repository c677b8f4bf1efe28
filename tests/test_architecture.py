"""Who may import whom, what importing costs, and where time may be read."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flower_hpc

ROOT = Path(flower_hpc.__file__).parent
LEAVES = {"errors", "records", "mean", "protocol", "clock", "storage", "telemetry"}
LEAVES |= {"process", "parent", "local_socket", "cores"}
MAY = {
    "errors": set(),
    "clock": set(),
    "process": set(),
    "cores": set(),
    "parent": set(),
    "local_socket": set(),
    "protocol": LEAVES,
    "records": LEAVES,
    "mean": LEAVES,
    "storage": LEAVES,
    "telemetry": LEAVES,
    "compression": LEAVES,
    "client": LEAVES | {"compression", "transport"},
    "strategies": LEAVES | {"compression"},
    "launchers": LEAVES,
    "network": LEAVES,
    "federation": LEAVES | {"launchers", "network"},
    "transport": LEAVES,
    "tasks": LEAVES | {"client"},
    "apps": LEAVES | {"tasks", "client", "strategies", "compression"},
    "cli": LEAVES | {"federation", "network", "strategies", "apps", "transport"},
}
HEAVY = {"torch", "torchvision", "medmnist", "sklearn", "ray", "kubernetes", "submitit", "psij", "datasets"}
LATE = {"launchers": {"submitit", "psij", "kubernetes", "boto3", "botocore"}, "transport": {"mpi4py"}}
HEAVY |= {"boto3", "botocore", "mpi4py"}


def imports_of(path: Path) -> set[str]:
    """Absolute names of all that a module imports, anywhere in it."""
    package = ("flower_hpc", *path.relative_to(ROOT).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def modules():
    return [p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_flow_one_way(path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    allowed = MAY[part] | {part, "__version__"}
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top == "flower_hpc" and rest:
            assert rest.partition(".")[0] in allowed, f"{part} imports {name}"
        if part not in ("tasks", "apps"):
            # torch appears in `client` for type checkers alone, and launchers import their scheduler's
            # package when a job is submitted, as ranks do MPI's when they join one; that importing them pulls
            # none is tested below
            late = LATE.get(part, {"torch"})
            assert top not in HEAVY - late, f"{part} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "strategies").rglob("*.py")), ids=lambda p: p.name)
def test_strategies_read_time_from_the_clock_alone(path):
    assert not {"time", "datetime"} & {name.partition(".")[0] for name in imports_of(path)}


@pytest.mark.parametrize(
    "module",
    [
        "flower_hpc",
        "flower_hpc.cli",
        "flower_hpc.client",
        "flower_hpc.federation",
        "flower_hpc.launchers",
        "flower_hpc.network.enclosed",
        "flower_hpc.strategies",
        "flower_hpc.tasks.options",
        "flower_hpc.telemetry",
        "flower_hpc.transport",
        "flower_hpc.transport.mpi.job",
    ],
)
def test_importing_pulls_nothing_heavy(module):
    code = f"import sys, {module}; print(*{{n.partition('.')[0] for n in sys.modules}})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(out.stdout.split())


def test_importing_costs_little_more_than_importing_flwr():
    # both in one process: what is left is a ratio, whatever this machine does beside
    code = (
        "import time; start = time.perf_counter(); "
        "import flwr.app, flwr.serverapp.strategy, flwr.clientapp; then = time.perf_counter(); "
        "import flower_hpc, flower_hpc.strategies, flower_hpc.client; "
        "print((time.perf_counter() - then) / (then - start))"
    )
    ratios = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(ratios) < 0.6


def test_files_stay_small():
    long = {str(p.relative_to(ROOT)): n for p in modules() if (n := len(p.read_text().splitlines())) > 300}
    assert not long
