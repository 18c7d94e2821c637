"""What the widgets choose with: a picture, bundled or uploaded; layers and their weights; two numbers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ipywidgets as w
from PIL import Image
from torch import Tensor

from ..losses.algebra import Loss, layer_names
from ..networks.backbone import Backbone
from ..networks.recommended import Recommended
from ..pictures.reading import PHOTOS, as_picture, from_pil, painting, paintings, photo

OWN = "your own"


class Chooser(w.HBox):
    """A bundled picture by name, "photo" or "painting", or one's own by upload."""

    def __init__(self, kind: str, picture: Any):
        names, self.load = (PHOTOS, photo) if kind == "photo" else (paintings(), painting)
        bundled = isinstance(picture, str) and picture in names
        self.own = None if bundled else as_picture(picture)
        options = [*names] if bundled else [OWN, *names]
        self.choice = w.Dropdown(options=options, value=picture if bundled else OWN, description=kind)
        self.upload = w.FileUpload(accept="image/*", multiple=False, layout={"width": "100px"})
        self.upload.observe(self._uploaded, "value")
        super().__init__([self.choice, self.upload])

    def picture(self) -> Tensor:
        """The chosen picture (1, 3, H, W)."""
        return self.load(str(self.choice.value)) if self.own is None or self.choice.value != OWN else self.own

    def _uploaded(self, change: Any) -> None:
        files = change["new"].values() if isinstance(change["new"], dict) else change["new"]  # ipywidgets 7, or 8
        for file in files:
            try:
                self.own = from_pil(Image.open(io.BytesIO(bytes(file["content"]))))
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                self.upload.description = "no picture"
                return
            self.upload.description = "Upload"
            self.choice.options = [OWN, *(name for name in self.choice.options if name != OWN)]
            self.choice.value = OWN


class Layers(w.VBox):
    """Layers to choose from a list, and a weight for each that is chosen; or a loss in their place."""

    def __init__(self, recommended: Callable[[Recommended], Mapping[str, float]]):
        self.recommended = recommended
        self.names = self.described = w.SelectMultiple(rows=5)
        self.sliders: dict[str, w.FloatSlider] = {}
        self.loss: Loss | None = None
        super().__init__([self.names])
        self.names.observe(self._chosen, "value")

    @property
    def value(self) -> Mapping[str, float] | Loss | None:
        """What the recipes take: layer -> weight of those that are chosen; else the loss; None if there is none."""
        return {name: self.sliders[name].value for name in self.names.value} or self.loss

    @value.setter
    def value(self, layers: str | Iterable[str] | Mapping[str, float] | Loss | None) -> None:
        self.loss, self.names.value = (layers if isinstance(layers, Loss) else None), ()
        weights = {} if isinstance(layers, Loss) else self.advised if layers is None else layers
        weights = weights if isinstance(weights, Mapping) else dict.fromkeys(layer_names(weights), 1.0)
        if missing := weights.keys() - set(self.names.options):
            raise ValueError(f"this network has no layer {', '.join(sorted(missing))}")
        self.names.value = tuple(weights)
        for name, weight in weights.items():
            self.sliders[name].value = weight
        self._list()

    def of(self, backbone: Backbone) -> None:
        """Offer the layers of a network, its recommended ones chosen."""
        self.advised, self.names.value, self.sliders = self.recommended(backbone.recommended), (), {}
        self.names.options = backbone.names  # without the logits, which have no positions
        self.value = None

    def _chosen(self, change: Any) -> None:
        for name in change["new"]:
            self.sliders.setdefault(name, w.FloatSlider(1.0, min=0.0, max=4.0, step=0.05, description=name))
        self._list()

    def _list(self) -> None:
        loss = [w.Label(f"{self.loss}")] if self.loss and not self.names.value else []
        self.children = [self.names, *(self.sliders[name] for name in self.names.value), *loss]


class Ends(w.VBox):
    """Two whole numbers: what something is at first, and at last."""

    def __init__(self, first: int, last: int, least: int, most: int):
        self.first, self.last = w.IntSlider(first, least, most), w.IntSlider(last, least, most, description="to")
        self.described, self.last.style = self.first, {"description_width": "110px"}
        super().__init__([self.first, self.last])

    @property
    def value(self) -> tuple[int, int]:
        """Both, the first one first."""
        return self.first.value, self.last.value

    @value.setter
    def value(self, numbers: int | tuple[int, int]) -> None:
        self.first.value, self.last.value = (numbers, numbers) if isinstance(numbers, int) else numbers
