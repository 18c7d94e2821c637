"""A lab for DeepDream, neural style transfer and what grew from them. ``import labkit as lk``."""

from . import (
    adain,
    attack,
    blackbox,
    colour,
    explain,
    faststyle,
    federated,
    perturb,
    presets,
    prior,
    privacy,
    quantize,
    rounding,
    shapes,
    superres,
)
from .algebra import Loss, Sum, Window
from .backbones import BACKBONES, load_backbone, pick_device
from .create import between, channels, create, creating, each
from .diagnosis import explain_losses
from .dream import dream, dreaming, ranked_channels
from .films import frames_of, save_frames
from .gradients import Evaluation, Evaluator
from .histograms import histogram
from .images import (
    PHOTOS,
    as_picture,
    difference,
    grid,
    heat,
    load,
    luma,
    painting,
    paintings,
    photo,
    resize,
    save,
    settings_of,
    to_pil,
)
from .losses import activation, anchor, caricature, class_logit, content, guide, total_variation
from .moments import diversity, gram
from .network import Backbone, ReceptiveField, Recommended
from .notebook import CheckError, check, compare, curves, show, tidy
from .optimize import Progress
from .precision import pick_precision
from .style import stylize, stylizing
from .variants import variant
from .video import dream_frames, journey, stylize_frames
from .wrapping import wrap

from .moments import style  # isort: skip  # last, because importing the module .style took its name

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`lab` is imported when it is first asked for: scripts need no widgets."""
    if name == "lab":
        from .widgets import lab

        return lab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BACKBONES",
    "PHOTOS",
    "Backbone",
    "CheckError",
    "Evaluation",
    "Evaluator",
    "Loss",
    "Progress",
    "ReceptiveField",
    "Recommended",
    "Sum",
    "Window",
    "activation",
    "adain",
    "anchor",
    "as_picture",
    "attack",
    "between",
    "blackbox",
    "caricature",
    "channels",
    "check",
    "class_logit",
    "colour",
    "compare",
    "content",
    "create",
    "creating",
    "curves",
    "difference",
    "diversity",
    "dream",
    "dream_frames",
    "dreaming",
    "each",
    "explain",
    "explain_losses",
    "faststyle",
    "federated",
    "frames_of",
    "gram",
    "grid",
    "guide",
    "heat",
    "histogram",
    "journey",
    "lab",
    "load",
    "load_backbone",
    "luma",
    "painting",
    "paintings",
    "perturb",
    "photo",
    "pick_device",
    "pick_precision",
    "presets",
    "prior",
    "privacy",
    "quantize",
    "ranked_channels",
    "resize",
    "rounding",
    "save",
    "save_frames",
    "settings_of",
    "shapes",
    "show",
    "style",
    "stylize",
    "stylize_frames",
    "stylizing",
    "superres",
    "tidy",
    "to_pil",
    "total_variation",
    "variant",
    "wrap",
]
