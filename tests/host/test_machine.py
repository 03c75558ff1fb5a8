import os

from fisher_jax.host.machine import count_cores, describe_machine


def test_where_the_system_lacks_affinity_all_cores_are_counted(monkeypatch):
    """macOS has no sched_getaffinity."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert count_cores() == 6
    assert describe_machine().endswith(", 6 cores")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_cores() == 1
