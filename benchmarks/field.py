"""The lab beside the field's best-known programs: the same network, pictures, sizes and machine, in one run.

    make bench PEERS=folder        the folder holds checkouts, named as their repositories

The peers' code is run as it is, from where it lies; nothing of it is kept here. Each adapter starts a peer with its
own defaults on given pictures, and `Stopwatch` times what its optimizer evaluates. Two measurements:

- *evaluations*: seconds per loss-and-gradient, ours with the same layers and statistic;
- *quality*: the seconds of a peer's whole default schedule, and the loss of its picture by one referee (Gatys' loss,
  which is neither's own); then the seconds after which our picture is better by the same referee.

The network is VGG19 (VGG16 for DeepDream), see networks.py.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from networks import in_every_program, shared_network
from PIL import Image
from torch import Tensor, nn

import labkit as lk

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
CAFFE_MEAN = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)


# --- timing a program from outside -----------------------------------------------------------------------------------


class Enough(BaseException):
    """Ends a program after the evaluations that were wanted; not an Exception, so that nobody catches it."""


class Stopwatch:
    """Times every closure that torch's optimizers call, ends the program after ``limit``, and keeps its pixels."""

    def __init__(self, limit: int | None = None):
        self.limit, self.seconds, self.pixels = limit, [], None

    def timed(self, closure: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = closure()
        self.seconds.append(time.perf_counter() - started)
        if self.limit and len(self.seconds) >= self.limit:
            raise Enough
        return found

    @contextmanager
    def watching(self) -> Iterator[None]:
        optimizers = torch.optim.LBFGS, torch.optim.Adam
        kept = [optimizer.step for optimizer in optimizers]

        def watched(step: Callable) -> Callable:
            def replacement(optimizer: torch.optim.Optimizer, closure: Callable) -> Any:
                self.pixels = optimizer.param_groups[0]["params"][0]
                return step(optimizer, lambda: self.timed(closure))

            return replacement

        for optimizer, step in zip(optimizers, kept, strict=True):
            optimizer.step = watched(step)
        try:
            yield
        except Enough:
            pass
        finally:
            for optimizer, step in zip(optimizers, kept, strict=True):
                optimizer.step = step


@contextmanager
def as_program(folder: Path, *arguments: str) -> Iterator[None]:
    """The state of the interpreter that a program in ``folder`` expects when it is started from there."""
    kept = sys.path[:], sys.argv, os.getcwd()
    sys.path.insert(0, str(folder))
    sys.argv = ["program", *arguments]
    os.chdir(folder)
    try:
        yield
    finally:
        sys.path[:], sys.argv = kept[:2]
        os.chdir(kept[2])


def stand_in(name: str, **contents: Any) -> None:
    """A module of this name, for programs that import a library that they do not need here."""
    if name not in sys.modules:
        sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)


def stand_in_for_opencv() -> None:
    """What two of the peers use of OpenCV, by Pillow and NumPy."""
    import numpy as np

    def imread(path: str) -> Any:
        return np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1].copy()

    def resize(picture: Any, size: tuple[int, int], interpolation: int = 1) -> Any:
        tensor = torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32)).movedim(2, 0)[None]
        mode = "bicubic" if interpolation == 2 else "bilinear"
        return nn.functional.interpolate(tensor, size[::-1], mode=mode)[0].movedim(0, 2).numpy()

    stand_in("cv2", imread=imread, resize=resize, imwrite=lambda *a: True, INTER_CUBIC=2, VideoCapture=None)


# --- the peers: each is started with its own defaults, and says how its pixels become a picture -----------------------


def crowsonkb(folder: Path, pictures: Path, size: int, whole: bool) -> Callable[[Tensor], Tensor]:
    stand_in("aiohttp", web=types.SimpleNamespace())
    stand_in("style_transfer.web_interface", WebInterface=None)
    with as_program(folder):
        from style_transfer.style_transfer import StyleTransfer

        content, painting = (Image.open(pictures / name).convert("RGB") for name in ("content.png", "style.png"))
        smallest = {} if whole else {"min_scale": size}  # it starts small: its first evaluations are not at this size
        StyleTransfer(["cpu"]).stylize(content, [painting], end_scale=size, **smallest)
    return lambda pixels: pixels


def neural_style_pt(folder: Path, pictures: Path, size: int, whole: bool) -> Callable[[Tensor], Tensor]:
    from torchvision import models as zoo

    weights = pictures / "vgg19.pth"
    torch.save({k: v for k, v in zoo.vgg19().state_dict().items() if k.startswith("features.")}, weights)
    options = ["-content_image", "content.png", "-style_image", "style.png", "-image_size", str(size), "-gpu", "c"]
    options += ["-backend", "mkl", "-model_file", str(weights), "-disable_check", "-seed", "0", "-print_iter", "0"]
    with as_program(folder, *options):
        os.chdir(pictures)
        runpy.run_path(str(folder / "neural_style.py"), run_name="__main__")
    return lambda pixels: (pixels + CAFFE_MEAN).flip(1) / 255


def gordicaleksa(folder: Path, pictures: Path, size: int, whole: bool) -> Callable[[Tensor], Tensor]:
    stand_in_for_opencv()
    with as_program(folder):
        from neural_style_transfer import neural_style_transfer

        places = dict.fromkeys(("content_images_dir", "style_images_dir", "output_img_dir"), str(pictures))
        names = {"content_img_name": "content.png", "style_img_name": "style.png", "img_format": (4, ".jpg")}
        weights = {"content_weight": 1e5, "style_weight": 3e4, "tv_weight": 1.0}
        rest = {"optimizer": "lbfgs", "model": "vgg19", "init_method": "content", "saving_freq": -1}
        neural_style_transfer({**places, **names, **weights, **rest, "height": size * 3 // 4})
    return lambda pixels: (pixels + MEAN) / 255


def pytorch_tutorial(folder: Path, pictures: Path, size: int, whole: bool) -> Callable[[Tensor], Tensor]:
    """The script, in a folder that has the pictures where it looks for them, both of one size as it wants them."""
    place = pictures / "data" / "images" / "neural-style"
    place.mkdir(parents=True, exist_ok=True)
    side = (size, size * 3 // 4)
    for own, its in (("content.png", "dancing.jpg"), ("style.png", "picasso.jpg")):
        Image.open(pictures / own).convert("RGB").resize(side).save(place / its, quality=95)
    source = (folder / "neural_style_tutorial.py").read_text(encoding="utf-8")
    source = source.replace("transforms.Resize(imsize)", f"transforms.Resize({min(side)})")
    with as_program(folder):
        import matplotlib

        matplotlib.use("agg")
        os.chdir(pictures)
        exec(compile(source, "neural_style_tutorial.py", "exec"), {"__name__": "__main__"})
    return lambda pixels: pixels


STYLE_PEERS: dict[str, tuple[str, Callable, str]] = {  # name -> (folder, adapter, statistic of our matching loss)
    "crowsonkb/style-transfer-pytorch": ("style-transfer-pytorch", crowsonkb, "wasserstein"),
    "ProGamerGov/neural-style-pt": ("neural-style-pt", neural_style_pt, "gram"),
    "gordicaleksa/pytorch-neural-style-transfer": ("pytorch-neural-style-transfer", gordicaleksa, "gram"),
    "PyTorch's tutorial": ("pytorch-tutorials", pytorch_tutorial, "gram"),
}
TUTORIAL_LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"), ("conv2_2",)
DREAM_PEER = "gordicaleksa/pytorch-deepdream"


# --- measurements, each in a process of its own -----------------------------------------------------------------------


def peer_style(peers: str, name: str, size: int, evaluations: int | None) -> dict[str, Any]:
    """Seconds per evaluation of a peer (after two to warm up), or, without a limit, its whole default schedule."""
    folder, adapter, _ = STYLE_PEERS[name]
    watch = Stopwatch(evaluations)
    with in_every_program(shared_network("vgg19")), tempfile.TemporaryDirectory() as place:
        photo, painting = two_pictures(size)
        lk.save(photo, Path(place, "content.png"))
        lk.save(painting, Path(place, "style.png"))
        started = time.perf_counter()
        with watch.watching():
            decode = adapter(Path(peers, folder), Path(place), size, evaluations is None)
        elapsed = time.perf_counter() - started
        found = {"seconds": median(watch.seconds[2:]), "evaluations": len(watch.seconds), "elapsed": elapsed}
        if evaluations is None:
            picture = decode(watch.pixels.detach()).clamp(0, 1)
            found["referee"] = referee(tuple(picture.shape[-2:]))(picture)
    return found


def two_pictures(size: int) -> tuple[Tensor, Tensor]:
    return lk.resize(lk.photo("coffee"), (size * 3 // 4, size)), lk.resize(lk.painting("lantern_bay"), size)


def referee(size: tuple[int, int]) -> Callable[[Tensor], float]:
    """Gatys' loss in float32: content at relu4_2, Gram matrices of five layers, their ratio as in jcjohnson's code."""
    photo, painting = two_pictures(max(size))
    loss = 5 * lk.content(photo, "relu4_2", relative=False) + 100 * lk.style(painting, STYLE_LAYERS, relative=False)
    evaluator = lk.Evaluator(lk.load_backbone("vgg19", "cpu"), loss, size, "float32")
    return lambda picture: evaluator(lk.resize(picture, size)).loss.item()


def own_style(name: str, size: int, precision: str) -> dict[str, Any]:
    """Seconds per evaluation of ours, with the peer's layers and statistic."""
    with in_every_program(shared_network("vgg19")):
        backbone = lk.load_backbone("vgg19", "cpu")
        photo, painting = two_pictures(size)
        style_layers, content_layers = TUTORIAL_LAYERS if "tutorial" in name else (STYLE_LAYERS, ("relu4_2",))
        style = lk.style(painting, style_layers, statistic=STYLE_PEERS[name][2])
        loss = lk.content(photo, content_layers) + 30 * style + lk.total_variation()
        evaluate = lk.Evaluator(backbone, loss, tuple(photo.shape[-2:]), precision)
        return {"seconds": median(seconds_of(lambda: evaluate(photo), 12)[2:])}


def own_quality(size: int, target: float, settings: dict[str, Any]) -> dict[str, Any]:
    """Seconds until our picture is better than ``target`` by the referee, who is asked while the clock stands."""
    with in_every_program(shared_network("vgg19")):
        photo, painting = two_pictures(size)
        judge, spent = referee(tuple(photo.shape[-2:])), 0.0
        started = time.perf_counter()
        for progress in lk.stylizing(photo, painting, backbone="vgg19", device="cpu", **settings):
            spent += time.perf_counter() - started
            if progress.stage == progress.stages and progress.step % 5 == 0:
                loss = judge(progress.picture)
                if loss <= target:
                    return {"seconds": spent, "steps": progress.step, "referee": loss}
            started = time.perf_counter()
        return {"missed": judge(progress.picture), "seconds": spent}


def peer_dream(peers: str, size: int) -> dict[str, Any]:
    """Seconds of one step of the peer's dream: gradient, smoothing and update, at the full size."""
    stand_in_for_opencv()
    with in_every_program(shared_network("vgg16")), tempfile.TemporaryDirectory() as place:
        with as_program(Path(peers, DREAM_PEER.split("/")[1])):
            import deepdream
            from utils import constants

            net = deepdream.utils.fetch_and_prepare_model("VGG16_EXPERIMENTAL", "IMAGENET", torch.device("cpu"))
            photo, _ = two_pictures(size)
            mean, std = (
                torch.tensor(v).view(1, 3, 1, 1) for v in (constants.IMAGENET_MEAN_1, constants.IMAGENET_STD_1)
            )
            pixels = ((photo - mean) / std).requires_grad_()
            config = {"num_gradient_ascent_iterations": 10, "smoothing_coefficient": 0.5, "lr": 0.09}
            layer = net.layer_names.index("relu4_3")
            times = seconds_of(lambda: deepdream.gradient_ascent(config, net, pixels, [layer], 5), 12)
        del place
    return {"seconds": median(times[2:])}


def own_dream(size: int, precision: str) -> dict[str, Any]:
    """Seconds of one step of ours at the same layer, jitter included."""
    with in_every_program(shared_network("vgg16")):
        photo, _ = two_pictures(size)
        plain = {**lk.presets.PLAIN, "octaves": 1, "steps": 12}
        run = lk.dreaming(photo, "relu4_3", backbone="vgg16", device="cpu", precision=precision, **plain)
        times = seconds_of(lambda: next(run), 12)
    return {"seconds": median(times[2:])}


def wasserstein(peers: str, size: int) -> dict[str, Any]:
    """The W2 style term alone, value and gradient at relu5_1: seconds and values, the peer's and ours."""
    stand_in("aiohttp", web=types.SimpleNamespace())
    stand_in("style_transfer.web_interface", WebInterface=None)
    with in_every_program(shared_network("vgg19")):
        backbone = lk.load_backbone("vgg19", "cpu")
        photo, painting = two_pictures(size)
        evaluator = lk.Evaluator(backbone, lk.total_variation(), tuple(photo.shape[-2:]), "float32")
        own = lk.style(painting, ["relu5_1"], statistic="wasserstein", relative=False).bind(evaluator, photo.shape[-2:])
        f, target = (evaluator.features(x, ["relu5_1"])["relu5_1"] for x in (photo, painting))
    with as_program(Path(peers, "style-transfer-pytorch")):
        from style_transfer.style_transfer import StyleLossW2

        theirs = StyleLossW2(StyleLossW2.get_target(target))

    def measured(loss: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        def once() -> float:
            x = f.detach().requires_grad_()
            value = loss(x).sum()
            value.backward()
            return value.item()

        return median(seconds_of(once, 7)[2:]), once()

    peer_seconds, peer_value = measured(theirs)
    seconds, value = measured(lambda x: own.value(own.statistics({"relu5_1": x}, lk.Window())))
    return {"peer": peer_seconds, "seconds": seconds, "peer value": peer_value, "value": value}


def seconds_of(work: Callable[[], Any], times: int) -> list[float]:
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return found


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
