"""The Role that the README shows is the one that the code asks for."""

import re
from pathlib import Path

import yaml

from flower_hpc.federation.config import FederationConfig
from flower_hpc.federation.kubernetes_site import KubernetesSite
from flower_hpc.launchers.k8s.permissions import role

README = Path(__file__).parents[1] / "README.md"


def test_the_role_in_the_readme_is_the_role():
    section = README.read_text("utf-8").partition("\n## On Kubernetes\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    shown = [found for found in map(yaml.safe_load, blocks) if found.get("kind") == "Role"]
    assert shown == [role("flower-hpc")]


def test_the_site_in_the_readme_is_one_that_can_be_meant():
    section = README.read_text("utf-8").partition("\n## On Kubernetes\n")[2]
    text = re.search(r"```yaml\n(gateway: .*?)```", section, re.DOTALL)[1]
    config = FederationConfig.parse({"name": "lab"} | yaml.safe_load(text), "README.md")
    assert isinstance(config.sites["cloud"], KubernetesSite)
