"""How the process keeps memory between evaluations, where the C library is glibc."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of mallopt(3)
CHOICES = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_memory() -> bool:
    """Let what tensors free be used again instead of being given back; whether that could be done.

    glibc gives large blocks back to the system at once and asks for them again in the next evaluation, which must then
    clear them page by page: two thirds of the time of an evaluation at 2048 px. It costs about a quarter more memory
    at the peak, for holes. Holds for the whole process from now on; nothing is done where the user has chosen for
    malloc by an environment variable, and threads other than the main one gain less.
    """
    libc = _glibc()
    if libc is None or any(choice in os.environ for choice in CHOICES):
        return False
    return bool(libc.mallopt(MMAP_MAX, 0) and libc.mallopt(TRIM_THRESHOLD, -1))


def release_memory() -> None:
    """Give what is kept and not in use back to the system."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
