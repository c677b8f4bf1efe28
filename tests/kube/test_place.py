"""What objects are called, and that it always fits."""

from flower_hpc.federation.config import FederationConfig
from flower_hpc.federation.jobs import place_of
from flower_hpc.federation.state import StateDir
from flower_hpc.launchers.k8s.place import object_name


def test_the_longest_names_leave_room_for_what_kubernetes_adds(tmp_path):
    site = {"launcher": "kubernetes", "nodes": 1, "image": "flower-hpc:1"}
    told = {"name": "f" * 50, "gateway": {"address": "login1"}, "sites": {"s" * 50: site}}
    place = place_of(FederationConfig.parse(told, "f"), "s" * 50, StateDir(tmp_path))
    assert len(f"{place.name}-999") <= 52  # its StatefulSet adds eleven more to a label
    assert all(len(value) <= 63 for value in place.labels.values())


def test_long_names_that_differ_stay_different():
    assert object_name("a" * 60 + "b") != object_name("a" * 60 + "c")
    assert object_name("short") == "short"
