"""Kept memory: the next evaluation takes no page from the system, and all of it can be given back."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from labkit.base.memory import CHOICES, keep_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

PROGRAM = """
import json, resource, torch
from labkit.base.memory import keep_memory, release_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

def work():
    before = faults()
    torch.ones(25 * 2**20 // 4).add_(1).sum().item(), torch.ones(50 * 2**20 // 4).sum().item()
    return faults() - before

plain = [work() for _ in range(3)][-1]
could = keep_memory()
kept = [work() for _ in range(3)][-1]
held = resident()
release_memory()
print(json.dumps({"could": could, "plain": plain, "kept": kept, "returned": held - resident()}))
"""


@pytest.mark.slow
def test_memory_is_kept_and_given_back() -> None:
    """In a process of its own, because it holds for the whole process."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert found["could"]
    assert found["kept"] < 0.02 * found["plain"]
    assert found["returned"] > 45  # megabytes


@pytest.mark.parametrize("choice", CHOICES)
def test_the_users_own_choice_stands(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice, "1")
    assert not keep_memory()
