"""The Dockerfile makes what our manifests ask for: nobody's root, nothing secret, nothing that moves."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from flower_hpc import __version__
from flower_hpc.launchers.k8s import KubernetesOptions
from processes import BIN

ROOT = Path(__file__).parents[1]
WORDS = re.compile(r"\$\{(\w+)\}|\$(\w+)")


def instructions():
    """(name, words) of each instruction, its continuation lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines if line.strip()]


def stages():
    found = [[]]
    for one in instructions():
        if one[0] == "FROM":
            found.append([])
        found[-1].append(one)
    return found


def arguments():
    return {
        words.partition("=")[0]: words.partition("=")[2] for name, words in instructions() if name == "ARG"
    }


def test_the_last_stage_ends_as_nobody_in_particular():
    users = [words for name, words in stages()[-1] if name == "USER"]
    assert users == ["1000:1000"]
    after = [name for name, _ in stages()[-1]]
    assert "RUN" not in after[after.index("USER") :]


def test_the_user_is_the_one_of_our_pods():
    assert KubernetesOptions(folder=Path(), image="i").user == 1000


def test_no_base_image_has_a_tag_that_moves():
    froms = [words.split()[0] for name, words in instructions() if name == "FROM"]
    assert froms
    for reference in froms:
        full = WORDS.sub(lambda found: arguments()[found[1] or found[2]], reference)
        name, _, tag = full.rpartition(":")
        assert name.count("/") >= 2, f"{full} says no registry"
        assert re.search(r"\d+\.\d+", tag), f"{full} says no version"


def test_what_installs_has_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", arguments()["UV"])


def test_build_tools_and_caches_do_not_reach_the_image():
    copies = [words for name, words in stages()[-1] if name in ("COPY", "ADD")]
    assert copies == ["--from=build /opt/flower-hpc /opt/flower-hpc"]


def test_the_build_sees_what_it_copies_and_no_more():
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")]
    assert ignore[0] == "*"
    seen = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = {word for name, words in stages()[1] if name == "COPY" for word in words.split()[:-1]}
    assert seen == {word.removeprefix("./") for word in copied}
    assert all((ROOT / name).exists() for name in seen)


def test_it_copies_what_the_package_is_built_of():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {
        project["project"]["readme"],
        *project["project"]["license-files"],
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
    }
    copied = {word for name, words in stages()[1] if name == "COPY" for word in words.split()[:-1]}
    assert needed <= copied


def test_the_default_extras_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(arguments()["EXTRAS"].split(",")) <= set(project["project"]["optional-dependencies"])


def test_its_version_is_the_packages():
    assert arguments()["VERSION"] == __version__


def test_hadolint_finds_nothing():
    program = shutil.which("hadolint", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("hadolint is not installed: uv sync")
    done = subprocess.run([program, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
