"""Colors: luma, differences, and a picture given the colors of another."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..base.checks import check_choice
from .geometry import resize, size_of

Kind: TypeAlias = Literal["luma", "linear", "histogram"]


def matched(picture: Tensor, reference: Tensor, kind: Kind = "linear") -> Tensor:
    """A picture with the colors of another (Gatys et al. 2016, "Preserving Color in Neural Artistic Style Transfer").

    Args:
        picture, reference: (N, 3, H, W) and (N, 3, h, w), in [0, 1], or one for all of the other.
        kind: "luma" keeps the picture's luma and takes, place by place, the reference's chroma (which must show the
            same scene, and is resized); "linear" moves colors by a linear map so that mean and covariance become the
            reference's; "histogram" matches the histogram of each of R, G and B.

    Example:
        >>> cat, koi = lk.photo("chelsea", 32), lk.painting("koi_mosaic", 32)
        >>> torch.allclose(lk.color.matched(cat, cat), cat, atol=1e-3), lk.color.matched(cat, koi).shape
        (True, torch.Size([1, 3, 21, 32]))
    """
    check_choice("kind", kind, Kind)
    count = max(len(picture), len(reference))
    if {len(picture), len(reference)} - {1, count}:
        raise ValueError(f"{len(picture)} pictures cannot take the colors of {len(reference)}: give one for each")
    picture, reference = (x.expand(count, -1, -1, -1) for x in (picture, reference))
    match = {"luma": _with_chroma, "linear": _linear, "histogram": _histogram}[kind]
    return match(picture, reference.to(picture)).clamp(0, 1)


def _with_chroma(picture: Tensor, reference: Tensor) -> Tensor:
    """Chroma is what differs from luma, linearly: exchanging luma in YCbCr is adding the difference to R, G and B."""
    reference = resize(reference, size_of(picture))
    return reference + luma(picture) - luma(reference)


def _linear(picture: Tensor, reference: Tensor) -> Tensor:
    """Of all linear maps that match mean and covariance, the one that moves colors least: optimal transport's."""
    colors, wanted = (x.cpu().double().flatten(2) for x in (picture, reference))
    mean, target = colors.mean(2, keepdim=True), wanted.mean(2, keepdim=True)
    root, inverse = (_power(_covariance(colors), exponent) for exponent in (0.5, -0.5))
    transport = inverse @ _power(root @ _covariance(wanted) @ root, 0.5) @ inverse
    return (transport @ (colors - mean) + target).view(picture.shape).to(picture)


def _covariance(colors: Tensor) -> Tensor:
    centered = colors - colors.mean(2, keepdim=True)
    return centered @ centered.mT / colors.shape[2]


def _power(matrices: Tensor, exponent: float) -> Tensor:
    """Symmetric matrices to a power; a floor keeps inverses finite, because gray pictures' covariances have none."""
    values, vectors = torch.linalg.eigh(matrices)
    return vectors * values.clamp_min(1e-10 if exponent < 0 else 0)[:, None].pow(exponent) @ vectors.mT


def _histogram(picture: Tensor, reference: Tensor) -> Tensor:
    from skimage.exposure import match_histograms

    pairs = zip(picture.cpu().numpy(), reference.cpu().numpy(), strict=True)
    return torch.from_numpy(np.stack([match_histograms(*pair, channel_axis=0) for pair in pairs])).to(picture)


def luma(picture: Tensor) -> Tensor:
    """BT.601 luma (N, 1, H, W) of the sRGB values: 0.299 R + 0.587 G + 0.114 B."""
    weights = picture.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (picture * weights).sum(1, keepdim=True)


def color_correlation(device: torch.device | str | None = None) -> Tensor:
    """The matrix (3, 3) from decorrelated colors to RGB, from ImageNet's color covariance (Lucid, 2018)."""
    root = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], device=device)
    return root / root.norm(dim=0).max()


def difference(a: Tensor, b: Tensor, gain: float = 1.0) -> Tensor:
    """Where two pictures differ: |a - b| averaged over the colors times ``gain``, as a gray picture (N, 3, H, W)."""
    if size_of(a) != size_of(b):
        raise ValueError(f"pictures of one size are needed, not {size_of(a)} and {size_of(b)}")
    return ((a - b).abs().mean(1, keepdim=True) * gain).clamp(0, 1).expand(-1, 3, -1, -1)


def heat(values: Tensor) -> Tensor:
    """Values in [0, 1], (N, 1, H, W) or a gray picture, as a picture in colors from black over red to light yellow."""
    from matplotlib import colormaps

    colors = colormaps["inferno"](values[:, 0].detach().cpu().clamp(0, 1).numpy())[..., :3]
    return torch.from_numpy(colors).float().permute(0, 3, 1, 2).to(values.device)
