"""In which numbers a network computes, and that they are what they are called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from .checks import check_choice

Precision: TypeAlias = Literal["auto", "float32", "tf32", "bfloat16"]
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
Settings: TypeAlias = list[tuple[Any, str, Any]]
_LOCK = Lock()
_ENTERED: list[Settings] = []  # what was found first, then what each `arithmetic` that is on asks for


def pick_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype the network computes in.

    Args:
        precision: "auto" is bfloat16 where the device computes convolutions in it natively (CUDA from Ampere on, CPUs
            with AMX or AVX512-BF16), else float32; the environment variable LABKIT_PRECISION overrides it, so that a
            whole course can be run in float32, whose numbers agree between machines. "tf32" is float32 whose products
            an NVIDIA GPU may compute from numbers rounded to 10 bits: faster there, and float32 everywhere else.
        device: where it computes.
    """
    name = requested_precision(precision)
    if name == "auto":
        name = "bfloat16" if _has_fast_bfloat16(device) else "float32"
    return DTYPES[name]


def requested_precision(precision: Precision) -> str:
    """``precision``, checked; for "auto" what LABKIT_PRECISION says, if it says anything."""
    name = os.environ.get("LABKIT_PRECISION") or "auto" if precision == "auto" else precision
    check_choice("precision", name, Precision)
    return name


@contextmanager
def arithmetic(tf32: bool = False) -> Iterator[None]:
    """Within it float32 is computed in float32, and the same input gives the same output, on NVIDIA GPUs too.

    There PyTorch rounds what goes into a float32 convolution to 10 bits unless it is told not to (``tf32``: it may),
    and cuDNN may take algorithms that add in any order. The settings are the whole process's; afterwards they are as
    they were.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # PyTorch 2.9 and later, where the old names must not be mixed with these
        rounding = [(place, "fp32_precision", "tf32" if tf32 else "ieee") for place in (cudnn.conv, matmul)]
    else:
        rounding = [(place, "allow_tf32", tf32) for place in (cudnn, matmul)]
    wanted = [(cudnn, "benchmark", False), (cudnn, "deterministic", True), *rounding]
    with _LOCK:
        if not _ENTERED:
            _ENTERED.append([(place, name, getattr(place, name)) for place, name, _ in wanted])
        _ENTERED.append(wanted)
        _set(wanted)
    try:
        yield
    finally:
        with _LOCK:  # of threads that overlap, the last to leave restores what the first one found
            del _ENTERED[next(k for k, settings in enumerate(_ENTERED) if settings is wanted)]
            _set(_ENTERED[-1])
            if len(_ENTERED) == 1:
                _ENTERED.clear()


def _set(settings: Settings) -> None:
    for setting in settings:
        setattr(*setting)


def is_mps(device: torch.device) -> bool:
    """Whether this is an Apple GPU, which has no float64 and, in older versions of PyTorch, lacks some operations."""
    return device.type == "mps"


def off_mps(values: Tensor) -> Tensor:
    """The values, on the CPU if they lie on an Apple GPU: for a step that it may lack (see `is_mps`)."""
    return values.cpu() if is_mps(values.device) else values


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # not public, so they may go
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """``device`` itself, or, for None, the best there is: CUDA, then MPS, then CPU. ValueError if it cannot be used."""
    if device is not None:
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError, ImportError) as error:  # torch's ways of saying "unknown" and "not here"
            raise ValueError(f"the device {str(device)!r} cannot be used here: try cpu, cuda or mps") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
