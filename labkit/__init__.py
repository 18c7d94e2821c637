"""A lab for DeepDream, neural style transfer and what grew from them. ``import labkit as lk``."""

from typing import TYPE_CHECKING

from .base.devices import pick_device, pick_precision
from .engine.evaluator import Evaluation, Evaluator
from .engine.progress import Progress
from .losses.activations import (
    activation,
    between,
    caricature,
    channels,
    class_log_probability,
    class_logit,
    diversity,
    guide,
    per_picture,
)
from .losses.algebra import BoundLoss, Loss, Sum, Window
from .losses.energies import class_evidence, log_energy
from .losses.histograms import histogram
from .losses.neighbors import nearest_neighbors
from .losses.optimal_transport import relaxed_emd, self_similarity, strotss_objective
from .losses.reconstruction import content, pixel_mse
from .losses.regularizers import chroma_tv, total_variation
from .losses.styles import gram, style
from .networks.backbone import Backbone, ReceptiveField, Recommended
from .networks.surgery import variant
from .networks.wrapping import wrap
from .networks.zoo import BACKBONES, load_backbone
from .notebook.claims import CheckError, check
from .notebook.diagnosis import explain_losses
from .notebook.diagrams import diagram
from .notebook.display import PALETTE, compare, show
from .notebook.exercises import verify
from .notebook.plots import curves, tidy
from .notebook.showpieces import showpiece
from .outlook import attacks as attack
from .outlook import blackbox, federated, privacy, rounding, shapes
from .outlook import explanations as explain
from .outlook import perturbations as perturb
from .outlook import quantization as quantize
from .pictures import color as color
from .pictures.color import difference, heat, luma
from .pictures.films import frames_of, save_frames
from .pictures.geometry import grid, resize
from .pictures.reading import PHOTOS, as_picture, load, painting, paintings, photo, settings_of
from .pictures.writing import save, to_pil
from .recipes import adain, presets
from .recipes import fast_style as faststyle
from .recipes import restoration as prior
from .recipes import super_resolution as superres
from .recipes.deepdream import dream, dreaming, ranked_channels
from .recipes.objectives import style_objective
from .recipes.style_transfer import stylize, stylizing
from .recipes.video import dream_frames, journey, stylize_frames
from .recipes.visualization import create, creating, with_transparency

if TYPE_CHECKING:
    from .notebook.widgets import lab

__version__ = "0.1.0"


def __dir__() -> list[str]:
    """What is public, and nothing else."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> object:
    """`lab` is imported when it is first asked for: scripts need no widgets."""
    if name == "lab":
        from .notebook.widgets import lab

        return lab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["pick_device", "pick_precision"]
__all__ += ["Evaluation", "Evaluator", "Progress"]
__all__ += ["BoundLoss", "Loss", "Sum", "Window", "activation", "between", "caricature", "channels"]
__all__ += ["chroma_tv", "class_evidence", "class_log_probability", "class_logit", "content", "diversity", "gram"]
__all__ += ["guide", "histogram", "log_energy", "nearest_neighbors", "per_picture", "pixel_mse", "relaxed_emd"]
__all__ += ["self_similarity", "strotss_objective", "style", "total_variation"]
__all__ += ["BACKBONES", "Backbone", "ReceptiveField", "Recommended", "load_backbone", "variant", "wrap"]
__all__ += ["PALETTE", "CheckError", "check", "compare", "curves", "diagram", "explain_losses", "lab", "show"]
__all__ += ["showpiece", "tidy", "verify"]
__all__ += ["attack", "blackbox", "explain", "federated", "perturb", "privacy", "quantize", "rounding", "shapes"]
__all__ += ["PHOTOS", "as_picture", "color", "difference", "frames_of", "grid", "heat", "load", "luma", "painting"]
__all__ += ["paintings", "photo", "resize", "save", "save_frames", "settings_of", "to_pil"]
__all__ += ["adain", "create", "creating", "dream", "dream_frames", "dreaming", "faststyle", "journey", "presets"]
__all__ += ["prior", "ranked_channels", "style_objective", "stylize", "stylize_frames", "stylizing", "superres"]
__all__ += ["with_transparency"]
