"""The lab in a cell: controls, a picture that grows while it is computed, stop, go on, compare and save.

Views on `dreaming` and `stylizing_with`. Runs are computed in a thread, so that the kernel stays free while they last:
its own stop button, other cells and these controls go on working. All of it exists in ipywidgets 7.7, Colab's, and 8.
"""

from __future__ import annotations

import html
import inspect
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, get_args

import ipywidgets as w
import torch
from torch import Tensor

from ..base.checks import check_numbers
from ..engine.optimization import Optimizer
from ..engine.progress import Progress
from ..losses.styles import Statistic
from ..networks.backbone import Backbone
from ..networks.zoo import BACKBONES, load_backbone
from ..pictures.geometry import resize, size_of
from ..pictures.writing import save, to_pil
from ..recipes import presets
from ..recipes.deepdream import dreaming
from ..recipes.style_transfer import Colors, Init, stylizing, stylizing_with
from .controls import Chooser, Ends, Layers
from .display import jpeg

EVERY = 0.2  # seconds between two previews
SIZES = (256, 384, 512, 768, 1024)


def lab(
    photo: Any = "chelsea", painting: Any = "koi_mosaic", backbone: str | Backbone = "pocket", size: int = 384
) -> Lab:
    """A dream lab and a style lab, to be displayed as the last line of a cell.

    Args:
        photo, painting: the name of a bundled one, or anything `as_picture` takes; both can be changed there.
        backbone: a name or a loaded network.
        size: the longer side in pixels.
    """
    check_numbers(16, Integral, 8192, size=size)
    return Lab(photo, painting, backbone, size)


class Lab(w.Tab):
    """The two views, `dream` and `style`, as tabs."""

    def __init__(self, photo: Any, painting: Any, backbone: str | Backbone, size: int):
        self.dream, self.style = dream_view(photo, backbone, size), style_view(photo, painting, backbone, size)
        super().__init__([self.dream, self.style])
        self.set_title(0, "Dream")
        self.set_title(1, "Style")


def dream_view(photo: Any, backbone: str | Backbone, size: int) -> View:
    """A view on `dreaming`."""
    controls = {
        "layers": Layers(lambda recommended: {}),
        "octaves": w.IntSlider(5, 1, 8),
        "octave_scale": w.FloatSlider(1.4, min=1.1, max=2.0, step=0.05),
        "steps": Ends(20, 6, 1, 100),
        "step_size": w.FloatSlider(2.0, min=0.0, max=8.0, step=0.1),
        "step_decay": w.FloatSlider(0.3, min=0.0, max=1.0, step=0.05),
        "smoothing": w.FloatSlider(1.0, min=0.0, max=4.0, step=0.1),
        "laplacian": w.IntSlider(0, 0, 5),
        "decorrelate": w.FloatSlider(0.5, min=0.0, max=1.0, step=0.1),
        "anchor": w.FloatSlider(0.3, min=0.0, max=3.0, step=0.1),
        "mask": w.Dropdown(options=[("on texture", "texture"), ("on the subject", "salient"), ("everywhere", None)]),
        "seed": w.IntText(0),
    }
    named = presets.of(inspect.signature(dreaming).parameters)
    return View("dream", dreaming, [Chooser("photo", photo)], controls, named, backbone, size, "dream.png")


def style_view(photo: Any, painting: Any, backbone: str | Backbone, size: int) -> View:
    """A view on `stylizing_with`."""
    controls = {
        "content_weight": w.FloatSlider(1.0, min=0.0, max=10.0, step=0.1),
        "style_weight": w.FloatSlider(30.0, min=0.0, max=300.0, step=1.0),
        "tv_weight": w.FloatSlider(1.0, min=0.0, max=20.0, step=0.1),
        "chroma_tv_weight": w.FloatSlider(30.0, min=0.0, max=100.0, step=1.0),
        "content_layers": Layers(lambda recommended: dict.fromkeys(recommended.content, 1.0)),
        "style_layers": Layers(lambda recommended: recommended.style),
        "style_scale": w.FloatSlider(1.0, min=0.2, max=2.0, step=0.05),
        "style_inset": w.FloatSlider(0.05, min=0.0, max=0.4, step=0.01),
        "statistic": w.Dropdown(options=get_args(Statistic), value="wasserstein"),
        "neighbor_weight": w.FloatSlider(0.0, min=0.0, max=10.0, step=0.1),
        "color": w.Dropdown(options=[("the painting's", None), *((name, name) for name in get_args(Colors))]),
        "init": w.Dropdown(options=get_args(Init)),
        "parameterization": w.Dropdown(options=["laplacian", "fourier", "pixels"]),
        "optimizer": w.Dropdown(options=get_args(Optimizer)[:2]),
        "steps": w.IntSlider(200, 10, 1000, 10),
        "seed": w.IntText(0),
    }
    choosers = [Chooser("photo", photo), Chooser("painting", painting)]
    named = presets.of(inspect.signature(stylizing).parameters)
    return View("stylize", stylizing_with, choosers, controls, named, backbone, size, "styled.png")


class View(w.HBox):
    """Controls for one recipe, and the picture that it makes.

    `start`, `stop`, `go_on` and `save` are what the buttons press; `wait` is for programs.

    Args:
        name: the recipe's, in the settings of pictures that are saved.
        recipe: takes the pictures of ``choosers``, a network, the ``controls`` by name and ``resume``, and yields
            `Progress`.
        named: settings with a name, to which the controls can be set; what has no control is handed to the recipe.
        size: the longer side in pixels.
        file: where the picture is saved.
    """

    def __init__(
        self,
        name: str,
        recipe: Callable[..., Iterator[Progress]],
        choosers: Sequence[Chooser],
        controls: Mapping[str, Any],
        named: Mapping[str, Mapping[str, Any]],
        backbone: str | Backbone,
        size: int,
        file: str,
    ):
        self.name, self.recipe, self.choosers, self.controls = name, recipe, choosers, controls
        self.latest: Progress | None = None
        self.settings: dict[str, Any] = {}
        self.drawing = threading.Lock()
        self.thread: threading.Thread | None = None
        self.stopping = threading.Event()

        networks = {name: name for name in BACKBONES} | ({} if isinstance(backbone, str) else {backbone.name: backbone})
        self.backbone: Any = w.Dropdown(options=list(networks.items()), value=backbone, description="network")
        self.preset: Any = w.Dropdown(options=[("default", {}), *named.items()], description="preset")
        self.size: Any = w.Dropdown(options=sorted({*SIZES, size}), value=size, description="longer side")
        self.start_button = w.Button(description="Start", button_style="primary", icon="play")
        self.stop_button = w.Button(description="Stop", icon="stop", disabled=True)
        self.go_on_button = w.Button(description="Go on", icon="forward", disabled=True)
        self.save_button = w.Button(description="Save", icon="download", disabled=True)
        self.file = w.Text(file, layout={"width": "180px"})
        self.preview = w.Image(format="jpeg", layout={"max_width": "100%", "object_fit": "contain"})
        self.bar = w.IntProgress(0, layout={"width": "100%"})
        self.wipe = w.FloatSlider(0.0, min=0.0, max=1.0, step=0.01, description="before", readout=False)
        self.status = w.HTML()

        for name, control in controls.items():
            described = control.described if isinstance(control, (Layers, Ends)) else control
            described.description, described.style = name.replace("_", " "), {"description_width": "110px"}
        self.defaults = {
            name: None if isinstance(control, Layers) else control.value for name, control in controls.items()
        }
        self.backbone.observe(lambda change: self._offer_layers(), "value")
        self.preset.observe(lambda change: self._turn(controls), "value")
        self.wipe.observe(lambda change: self._show(), "value")
        self.start_button.on_click(lambda button: self.start())
        self.stop_button.on_click(lambda button: self.stop())
        self.go_on_button.on_click(lambda button: self.go_on())
        self.save_button.on_click(lambda button: self.save())
        left = w.VBox(
            [*choosers, self.size, self.backbone, self.preset, *controls.values()], layout={"min_width": "420px"}
        )
        buttons = w.HBox([self.start_button, self.stop_button, self.go_on_button])
        right = w.VBox([buttons, self.bar, self.status, self.preview, self.wipe, w.HBox([self.file, self.save_button])])
        super().__init__([left, right])
        self._offer_layers()
        self._show_photo()
        for source in (choosers[0].choice, choosers[0].upload):
            source.observe(lambda change: self._show_photo(), "value")

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the recipe, as the controls stand, with those of the preset that have none."""
        return {**self.preset.value, **{name: control.value for name, control in self.controls.items()}}

    @property
    def running(self) -> bool:
        """Whether a run is being computed."""
        return self.thread is not None and self.thread.is_alive()

    def start(self, resume: Any = None) -> None:
        """Compute in a thread; a run that is going on is stopped first."""
        self.stop()
        self.wait()
        self.latest = self.latest if resume else None
        self._allow(running=False)
        options, size = self.options, self.size.value
        try:
            pictures = [chooser.picture() for chooser in self.choosers]
            self.before = pictures[0] = resize(pictures[0], size)
            run = self.recipe(*pictures, backbone=self.backbone.value, **options, resume=resume)
        except (ValueError, OSError) as error:
            self._say(error)
            return
        self.settings = {"recipe": self.name, "backbone": self.backbone.label, "size": size, **options}
        self.settings["preset"] = self.preset.label
        self.settings |= {chooser.choice.description: chooser.choice.value for chooser in self.choosers}
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._work, args=(run, self.stopping), daemon=True)
        self._allow(running=True)
        self.thread.start()

    def stop(self) -> None:
        """Stop after the step that is being computed."""
        self.stopping.set()

    def go_on(self) -> None:
        """Go on where the last run stopped, with weights as the controls now stand."""
        if self.latest is not None:
            self.stop()
            self.wait()
            self.start(self.latest.state_dict())

    def wait(self, seconds: float | None = None) -> None:
        """Return when the run has ended or stopped."""
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(seconds)

    def save(self) -> None:
        """Write the picture to the named file, with the settings that made it."""
        if self.latest is None:
            return
        try:
            self._say(f"saved as {save(self.latest.picture, self.file.value, self.settings)}")
        except (ValueError, OSError) as error:
            self._say(error)

    def _work(self, run: Iterator[Progress], stopping: threading.Event) -> None:
        shown, unfinished = 0.0, False
        try:
            for progress in run:
                self.latest = progress
                unfinished = progress.step < progress.of
                if not unfinished or stopping.is_set() or time.monotonic() - shown > EVERY:
                    self._report(progress)
                    shown = time.monotonic()
                if stopping.is_set():
                    break
        except Exception as error:  # in a thread nobody else would say it
            self._say(error)
            unfinished = False  # the state may be that of a step half taken
        self._allow(running=False, unfinished=unfinished)

    def _report(self, progress: Progress) -> None:
        self.bar.max, self.bar.value = progress.of, progress.step
        terms = ", ".join(f"{name} {value:.3g}" for name, value in progress.terms.items())
        self._say(f"step {progress.step} of {progress.of}, {progress.elapsed:.1f} s: {terms}")
        self._show()

    def _show(self) -> None:
        """The latest picture, and of it so much from the left as it was before as the slider says."""
        with self.drawing:  # the slider asks from the kernel's thread
            after = self.before if self.latest is None else self.latest.picture
            self.preview.value = jpeg(to_pil(wiped(self.before, after, self.wipe.value)), quality=85)

    def _show_photo(self) -> None:
        if not self.running:
            self.latest, self.before = None, resize(self.choosers[0].picture(), self.size.value)
            self._allow(running=False)
            self._show()

    def _allow(self, running: bool, unfinished: bool = False) -> None:
        self.stop_button.disabled = not running
        self.go_on_button.disabled = running or not unfinished or self.latest is None
        self.save_button.disabled = self.latest is None and not running

    def _offer_layers(self) -> None:
        try:
            backbone = load_backbone(self.backbone.value)
        except Exception as error:  # no weights, no network, no memory: whatever it is, the user can choose another
            self._say(error)
            return
        layers = {name: control for name, control in self.controls.items() if isinstance(control, Layers)}
        for control in layers.values():
            control.of(backbone)
        self._turn(layers)

    def _turn(self, names: Iterable[str]) -> None:
        """Turn these controls to the preset, and to the defaults where it says nothing."""
        settings = {**self.defaults, **self.preset.value}
        for name in names:
            try:
                self.controls[name].value = settings[name]
            except ValueError as error:  # layers that the network has not
                self._say(error)

    def _say(self, what: str | BaseException) -> None:
        text = html.escape(str(what))
        self.status.value = f'<span style="color:#b00020">{text}</span>' if isinstance(what, BaseException) else text


def wiped(before: Tensor, after: Tensor, share: float) -> Tensor:
    """The picture ``after`` with its left ``share`` as it was ``before``, at the size of ``after``."""
    edge = round(share * after.shape[-1])
    return torch.cat([resize(before, size_of(after)).to(after)[..., :edge], after[..., edge:]], dim=-1)
