"""What the widgets choose with: a picture, bundled or uploaded; layers, and their weights."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ipywidgets as w
from PIL import Image
from torch import Tensor

from ..networks.backbone import Backbone
from ..networks.recommended import Recommended
from ..pictures.reading import as_picture, from_pil

OWN = "your own"


class Chooser(w.HBox):
    """A picture by name, or one's own by upload."""

    def __init__(self, label: str, given: Any, names: Sequence[str], find: Callable[[str], Tensor]):
        self.find = find
        bundled = isinstance(given, str) and given in names
        self.own = None if bundled else as_picture(given)
        options = [*names] if bundled else [OWN, *names]
        self.choice = w.Dropdown(options=options, value=given if bundled else OWN, description=label)
        self.upload = w.FileUpload(accept="image/*", multiple=False, layout={"width": "100px"})
        self.upload.observe(self._uploaded, "value")
        super().__init__([self.choice, self.upload])

    def picture(self) -> Tensor:
        """The chosen picture (1, 3, H, W)."""
        return self.find(str(self.choice.value)) if self.own is None or self.choice.value != OWN else self.own

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
    """Layers to choose from a list."""

    def __init__(self, recommended: Callable[[Recommended], Iterable[str]]):
        self.recommended = recommended
        self.names = w.SelectMultiple(rows=5)
        super().__init__([self.names])

    @property
    def value(self) -> Iterable[str] | None:
        """What the recipes take; None if nothing is chosen."""
        return list(self.names.value) or None

    def of(self, backbone: Backbone) -> None:
        """Offer the layers of a network, its recommended ones chosen."""
        self.names.value = ()
        self.names.options = [name for name in backbone.layers if name != "logits"]  # which have no positions
        self.names.value = tuple(self.recommended(backbone.recommended))


class LayerWeights(Layers):
    """Layers to choose from a list, and a weight for each that is chosen."""

    def __init__(self, recommended: Callable[[Recommended], Mapping[str, float]]):
        super().__init__(recommended)
        self.weights = recommended
        self.sliders: dict[str, w.FloatSlider] = {}
        self.names.observe(self._chosen, "value")

    @property
    def value(self) -> dict[str, float] | None:
        return {name: self.sliders[name].value for name in self.names.value} or None

    def of(self, backbone: Backbone) -> None:
        self.sliders = {}
        super().of(backbone)
        for name, weight in self.weights(backbone.recommended).items():
            self.sliders[name].value = weight

    def _chosen(self, change: Any) -> None:
        for name in change["new"]:
            self.sliders.setdefault(name, w.FloatSlider(1.0, min=0.0, max=4.0, step=0.05, description=name))
        self.children = [self.names, *(self.sliders[name] for name in change["new"])]
