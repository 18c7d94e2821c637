"""Pictures from files, arrays and images. A picture is a float32 tensor (N, 3, H, W), sRGB, in [0, 1], everywhere."""

from __future__ import annotations

import io
import json
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..base.checks import check_choice
from ..base.files import bundled
from .geometry import resize

PictureLike: TypeAlias = Tensor | np.ndarray | Image.Image | str | Path  # what `as_picture` takes
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


def load(path: str | Path, size: int | tuple[int, int] | None = None) -> Tensor:
    """Read a picture file as a tensor (1, 3, H, W), sRGB, in [0, 1].

    EXIF orientation is applied, an embedded color profile is converted to sRGB, transparency is laid on white, palette,
    gray, CMYK and 16-bit pictures become RGB, and of an animation the first frame is taken. ``size``: as for `resize`.

    Raises:
        OSError: when there is no file, or none that may be read.
        ValueError: when the file is not a whole picture or claims more than 178 megapixels.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a picture: name a file in it")
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}: check the path (now in {Path.cwd()})")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): it was probably not copied or downloaded completely")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as many pixels are Pillow's hard limit
        try:
            with Image.open(path) as image:
                picture = from_pil(image)
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path} is too large a picture ({error}): make it smaller first") from error
        except UnidentifiedImageError as error:
            raise ValueError(f"{path} is not a picture that can be read ({error}): use PNG, JPEG or WebP") from error
        except PermissionError:
            raise
        except (OSError, SyntaxError, EOFError) as error:  # Pillow's ways of saying that the data ends early
            raise ValueError(f"{path} is damaged or cut off ({error}): copy or download it again") from error
    return picture if size is None else resize(picture, size)


def from_pil(image: Image.Image) -> Tensor:
    """A Pillow image of any mode as a picture (1, 3, H, W)."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":  # 16-bit gray: Pillow's own conversion clips instead
        return _from_array((np.asarray(image).astype(np.float32) / 65535).clip(0, 1))
    if image.mode == "F":
        return as_picture(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode == "P":
        image = image.convert("RGB")
    image = _to_srgb(image)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _from_array(np.asarray(image.convert("RGB")))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert from the embedded ICC profile, if there is a usable one, to sRGB."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        with suppress(ImageCms.PyCMSError, OSError):  # a broken profile says nothing about the pixels: they are sRGB
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode) or image
    return image


def photo(name: str, size: int | tuple[int, int] | None = None) -> Tensor:
    """One of scikit-image's photos in the public domain, `PHOTOS`, as a picture (1, 3, H, W). Nothing is downloaded.

    Example:
        >>> lk.photo("chelsea", size=100).shape
        torch.Size([1, 3, 67, 100])
    """
    check_choice("photo", name, PHOTOS)
    from skimage import data

    return as_picture(getattr(data, name)(), size)


def paintings() -> list[str]:
    """The names of the lab's own paintings."""
    return sorted(path.stem for path in bundled("paintings").glob("*.jpg"))


def painting(name: str, size: int | tuple[int, int] | None = None) -> Tensor:
    """One of the lab's own `paintings`, as a picture (1, 3, H, W); ``size`` as for `resize`."""
    check_choice("painting", name, paintings())
    return load(bundled(f"paintings/{name}.jpg"), size)


def as_picture(source: PictureLike, size: int | tuple[int, int] | None = None) -> Tensor:
    """Anything that shows a picture, as a checked picture tensor.

    Args:
        source: a path, a Pillow image, a NumPy array (H, W), (H, W, 3) or (H, W, 4), uint8 or float in [0, 1], or a
            tensor (3, H, W) or (N, 3, H, W) in [0, 1]. Transparency is laid on white.
        size: as for `resize`.

    Returns:
        A float32 tensor (N, 3, H, W) in [0, 1], a new one.

    Raises:
        ValueError: for a wrong shape, NaN or infinite pixels, or values outside [0, 1].

    Example:
        >>> lk.as_picture(np.zeros((48, 64), np.uint8)).shape
        torch.Size([1, 3, 48, 64])
    """
    if isinstance(source, (str, Path)):
        return load(source, size)
    if isinstance(source, Image.Image):
        picture = from_pil(source)
    elif isinstance(source, np.ndarray):
        picture = _from_array(source)
    elif isinstance(source, Tensor):
        picture = source[None] if source.ndim == 3 else source
    else:
        raise TypeError(f"a picture is a path, a Pillow image, an array or a tensor, not {type(source).__name__}")
    if picture.ndim != 4 or picture.shape[1] != 3 or 0 in picture.shape:
        raise ValueError(f"a picture has the shape (N, 3, height, width), this one has {tuple(picture.shape)}")
    picture = picture.detach().float()
    if not ((picture >= -1e-4) & (picture <= 1 + 1e-4)).all():  # NaN, too
        if not picture.isfinite().all():
            raise ValueError("the picture holds NaN or infinite pixels: repair them first, e.g. with .nan_to_num()")
        low, high = picture.min(), picture.max()
        raise ValueError(f"pixels must lie in [0, 1], these run from {low:.4g} to {high:.4g}: divide by 255?")
    picture = picture.clamp(0, 1)
    return picture if size is None else resize(picture, size)


def _from_array(array: np.ndarray) -> Tensor:
    if array.ndim == 2:
        array = np.stack([array] * 3, -1)
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        shape = "(height, width), with 3 or 4 colors at the end"
        raise ValueError(f"an array of a picture has the shape {shape}, not {array.shape}")
    array = array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
    if array.shape[2] == 4:
        array = 1 - array[..., 3:] * (1 - array[..., :3])
    return torch.from_numpy(array).permute(2, 0, 1)[None].contiguous()


def settings_of(path: str | Path) -> dict[str, Any]:
    """The settings that `save` wrote into a picture, {} when there are none."""
    with Image.open(path) as image:
        described = str(image.getexif().get(ExifTags.Base.ImageDescription, ""))
        note = image.info.get("labkit") or described.partition("labkit ")[2]
    return json.loads(note) if note.startswith("{") else {}
