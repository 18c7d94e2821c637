"""Several processes on one run, started by ``torchrun``; without it there is one, and nothing happens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


def rank_and_count() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are, as torchrun says in the environment."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def own_device(device: str | None) -> str | None:
    """``device``, or, where torchrun has started a process for each GPU and none is named, this process's own."""
    if device is None and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return device


@contextmanager
def joined(device: torch.device) -> Iterator[bool]:
    """Within it, the processes of torchrun can sum tensors (NCCL on GPUs, gloo elsewhere); yields if there are any."""
    _, count = rank_and_count()
    if count == 1:
        yield False
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield True
    finally:
        dist.destroy_process_group()
