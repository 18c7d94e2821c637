"""What the commands of the command line do: pictures, folders of pictures, films, one pass of a network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter
from itertools import chain
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from .. import __version__
from ..base.checks import MOST_SIDE, as_list, check_numbers
from ..base.devices import pick_device
from ..base.files import check_writable
from ..base.processes import joined, own_device, rank_and_count
from ..engine.progress import Progress, finish, with_bar
from ..networks.surgery import variant
from ..networks.zoo import BACKBONES, load_backbone
from ..pictures.color import luma
from ..pictures.films import FILM_SUFFIXES, VIDEOS, animated, check_film, frames_of, rate_of, save_frames
from ..pictures.geometry import resize, size_of
from ..pictures.masks import NAMES
from ..pictures.reading import PICTURE_SUFFIXES, load, painting, paintings
from ..pictures.writing import check_place, save
from ..recipes import adain, presets
from ..recipes import fast_style as faststyle
from ..recipes import super_resolution as superres
from ..recipes.deepdream import dreaming
from ..recipes.objectives import style_objective
from ..recipes.style_transfer import stylizing, stylizing_with
from ..recipes.video import FRAME, dream_frames, journey, stylize_frames
from .options import flag, options_of

CHECKPOINT_EVERY = 10.0  # seconds
OF_PICTURES = {"variations", "bits", "checkpoint"}
FILES = ("photo", "painting", "mask", "masks", "painting_masks")


# --- recipes --------------------------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """A command that follows a recipe: what it does, and two functions that do it.

    ``run`` makes a picture of a photo and paintings; ``film`` makes frames of frames, or, if there are films alone, of
    a photo. ``film_defaults``: options of ``run`` that have another default in a film.
    """

    text: str
    run: Callable[..., Iterator[Progress]]
    film: Callable[..., Iterator[Tensor]]
    options: dict[str, Parameter]
    film_options: dict[str, Parameter]
    film_defaults: Mapping[str, Any] = FRAME
    films_alone: bool = False


DREAM, JOURNEY = options_of(dreaming), options_of(journey)
STYLE, STYLE_FILM = options_of(variant, style_objective, stylizing), options_of(stylize_frames)
STEPS = {"steps": STYLE_FILM["steps"].default}
RECIPES = {
    "dream": Recipe("let a network dream a photo or a film", dreaming, dream_frames, DREAM, options_of(dream_frames)),
    "stylize": Recipe(
        "repaint a photo or a film in the style of a painting", stylizing_with, stylize_frames, STYLE, STYLE_FILM, STEPS
    ),
    "journey": Recipe("dream a photo, move, dream again: a film", dreaming, journey, DREAM, JOURNEY, FRAME, True),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A recipe on files, as the shell asks for it; ``arguments`` are those of the recipe's function."""

    command: str
    arguments: dict[str, Any]
    photo: str
    painting: Sequence[str] = ()
    output: str
    size: int = 768
    quality: int = 90
    bits: Literal[8, 16] = 8
    checkpoint: str | None = None
    quiet: bool = False
    fps: float | None = None

    def run(self, film: bool) -> None:
        """Make a film, the pictures of a folder, or a picture, alone or with other processes."""
        device = own_device(self.arguments["device"])
        if film:
            self._film(device)
        elif Path(self.photo).is_dir():
            self._folder(device)
        else:
            with joined(pick_device(device)) as several:
                self._picture(self.photo, Path(self.output), device=device, distributed=several)

    def _picture(self, photo: str | Path, out: Path, whole: bool = False, **more: Any) -> None:
        """Run the recipe on one photo and write the result; of several processes on it, the first speaks and writes.

        Args:
            whole: an interrupt goes on upwards and writes nothing: half a picture in a folder would be taken for a
                whole one when the folder is run again.
            more: arguments beside the job's.
        """
        picture = _photo(str(photo), self.size)
        check_place(out, self.quality, self.bits)  # now, not after a long run
        if self.checkpoint:
            check_writable(self.checkpoint)
        first = not more.get("distributed") or rank_and_count()[0] == 0
        checkpoint = Path(self.checkpoint) if self.checkpoint else None
        resume = checkpoint if checkpoint and checkpoint.exists() else None
        run = RECIPES[self.command].run(picture, **self._read(picture) | more, resume=resume)
        run = with_bar(_saved(run, checkpoint) if checkpoint and first else run, first and not self.quiet)
        pictures = finish(deque(run, maxlen=1) if whole else run)
        if first:
            settings = self._settings(photo)
            for one, path in zip(pictures, _numbered(out, len(pictures)), strict=True):
                print(save(one, path, settings, self.quality, self.bits), flush=True)

    def _folder(self, device: str | None) -> None:
        """Every picture of a folder into another one, shared among the processes; what is there already is skipped."""
        if self.checkpoint:
            raise ValueError("a folder needs no checkpoint: finished pictures are skipped when it is run again")
        out = Path(self.output)
        if out.suffix or out.is_file():
            raise ValueError(f"the pictures of a folder go into a folder or a film (.webp, .mp4, .gif), not into {out}")
        photos = sorted(path for path in Path(self.photo).iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
        if not photos:
            raise ValueError(f"{self.photo} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
        if len({path.stem for path in photos}) < len(photos):
            raise ValueError(f"two pictures in {self.photo} differ only in their endings: rename one")
        out.mkdir(parents=True, exist_ok=True)
        backbone = load_backbone(self.arguments["backbone"], device)
        rank, count = rank_and_count()
        for photo in photos[rank::count]:
            path = out / f"{photo.stem}.png"
            if not all(each.exists() for each in _numbered(path, self.arguments.get("variations", 1))):
                self._picture(photo, path, whole=True, device=device, backbone=backbone)

    def _film(self, device: str | None) -> None:
        """A film of a film, or of a photo. An interrupt ends it early, and the frames so far are written."""
        if rank_and_count()[1] > 1:
            raise ValueError("each frame of a film needs the one before: start it without torchrun")
        recipe = RECIPES[self.command]
        fps = (rate_of(self.photo) or 12.0) if self.fps is None else self.fps
        check_film(self.output, fps, self.quality)
        alone = recipe.films_alone
        frames = iter([_photo(self.photo, self.size)]) if alone else frames_of(self.photo, self.size or None)
        first = next(frames)
        made = recipe.film(first if alone else chain([first], frames), **self._read(first) | {"device": device})
        total = max(1, round(self.arguments["seconds"] * fps)) if alone else None
        print(save_frames(made, self.output, fps, quality=self.quality, total=total, progress=not self.quiet))

    def _read(self, photo: Tensor) -> dict[str, Any]:
        """The arguments, files read: ``mask`` as large as the photo, ``masks`` at most ``size``."""
        sizes = {"mask": size_of(photo), "masks": self.size, "painting_masks": 0}
        read = {name: _mask(value, sizes[name]) for name, value in self.arguments.items() if name in sizes}
        pictures = {"painting": [_picture(name) for name in self.painting]} if self.painting else {}
        return self.arguments | read | pictures

    def _settings(self, photo: str | Path) -> dict[str, Any]:
        """What is written into the picture: how to make it again. Of files it holds the names."""
        settings = {"labkit": __version__, "recipe": self.command, "size": self.size, **self.arguments}
        settings |= {"photo": str(photo)} | ({"painting": list(self.painting)} if self.painting else {})
        for name in FILES:
            if settings.get(name):
                names = [path and Path(path).name for path in as_list(settings[name])]
                settings[name] = names if len(names) > 1 else names[0]
        return settings


def run_recipe(command: str, **said: Any) -> None:
    """Do what a recipe's command says: what was ``said`` wins over the preset, and that over the defaults."""
    recipe = RECIPES[command]
    film = recipe.films_alone or _makes_film(said["photo"], said["output"])
    of_films = recipe.film_options.keys() - recipe.options.keys() | {"fps"}
    if idle := said.keys() & (OF_PICTURES if film else of_films):
        kind = "a film, not pictures" if film else "pictures, not a film"
        raise ValueError(f"{said['output']} is to hold {kind}: leave out {', '.join(map(flag, sorted(idle)))}")
    values = {name: option.default for name, option in command_options(command).items()}
    values |= {
        **(recipe.film_defaults if film else {}),
        **presets.of(recipe.options).get(said.get("preset", ""), {}),
        **said,
    }
    takes = recipe.options | recipe.film_options if film else recipe.options
    arguments = {name: value for name, value in values.items() if name in takes}
    files = {field.name: values[field.name] for field in fields(Job) if field.name in values}
    Job(command=command, arguments=arguments, **files).run(film)


def command_options(command: str) -> dict[str, Parameter]:
    """The options of a recipe's command, with their defaults for pictures, or for films where it makes them alone."""
    recipe = RECIPES[command]
    preset = Parameter(
        "preset", Parameter.KEYWORD_ONLY, default=None, annotation=Literal[tuple(presets.of(recipe.options))]
    )
    options = {**options_of(Job), **recipe.film_options, **recipe.options, "preset": preset}
    if not recipe.films_alone:
        return options
    options |= {name: options[name].replace(default=value) for name, value in recipe.film_defaults.items()}
    return {name: option for name, option in options.items() if name not in OF_PICTURES}


def check_said(said: Mapping[str, Any]) -> None:
    """Check what all commands take, before a long run; what is read must not be written over."""
    check_numbers(0, Integral, most=MOST_SIDE, size=said.get("size", 0))
    check_numbers(-1e18, Integral, most=1e18, seed=said.get("seed", 0))
    if said.get("device") == "meta":
        raise ValueError("the device 'meta' cannot be used here: try cpu, cuda or mps")
    words = {name: as_list(value) for name, value in said.items()}
    if empty := [name for name in words if "" in words[name]]:
        raise ValueError(f"{empty[0]} is an empty word: is a variable of the shell not set?")
    read = {name for key in (*FILES, "checkpoint") for name in words.get(key, []) if name} - {*paintings()}
    if "output" in said and Path(said["output"]).resolve() in {Path(name).resolve() for name in read}:
        raise ValueError(f"{said['output']} is read from, too: write to another file or folder")


def _makes_film(photo: str, output: str) -> bool:
    source, suffix = Path(photo), Path(output).suffix.lower()
    if source.suffix.lower() in VIDEOS or (suffix in FILM_SUFFIXES and (source.is_dir() or animated(source))):
        return True
    if suffix in FILM_SUFFIXES and suffix not in PICTURE_SUFFIXES:
        _picture(photo)  # says what is wrong with what is no picture either
        raise ValueError(f"{photo} does not move: end {output} in .png or .jpg")
    return False


def _mask(name: Any, size: int | tuple[int, int]) -> Any:
    """A mask from a file, its size or longer side ``size`` (0: as it is), or several; what is no file is kept."""
    if isinstance(name, list):
        return [_mask(each, size) for each in name]
    return name if name in (None, *NAMES) else luma(load(name, size or None))


def _numbered(out: Path, count: int) -> list[Path]:
    """Where the pictures of a batch go: ``out``, or ``out`` with numbers."""
    return [out] if count == 1 else [out.with_stem(f"{out.stem}-{index + 1}") for index in range(count)]


def _saved(run: Iterable[Progress], checkpoint: Path) -> Iterator[Progress]:
    """The same progress, its state written to a file now and then; a finished run leaves no file.

    Nothing is written when a run is interrupted: in the middle of a step its state belongs to no step.
    """
    written = 0.0
    for step in run:
        if step.elapsed - written >= CHECKPOINT_EVERY:
            step.save(checkpoint)
            written = step.elapsed
        yield step
        if step.step == step.of:
            checkpoint.unlink(missing_ok=True)


def _picture(name: str) -> Tensor:
    return painting(name) if name in paintings() and not Path(name).is_file() else load(name)


def _photo(name: str, size: int) -> Tensor:
    """A picture with its longer side ``size``; 0: as it is."""
    return resize(_picture(name), size) if size else _picture(name)


# --- one pass, and lists --------------------------------------------------------------------------------------------


def upscale(photo: str, *, output: str, size: int = 0, device: str | None = None) -> None:
    """make a picture twice as large"""
    check_place(output)
    print(save(superres.upscale(_photo(photo, size), superres.load_upscaler(device=device)), output))


def repaint(photo: str, painting: str, *, output: str, size: int = 0, device: str | None = None) -> None:
    """repaint a photo in one pass of a network, in a second"""
    check_place(output)
    picture, learned = _photo(photo, size), faststyle.load_network(device=device)
    if painting in learned.names and not Path(painting).is_file():
        repainted = faststyle.repaint(picture, painting, learned)
    else:
        repainted = adain.transfer(picture, _picture(painting), adain.load_decoder(device=device))
    print(save(repainted, output))


def backbones() -> None:
    """list the networks"""
    for name, (_, text) in BACKBONES.items():
        print(f"{name:16s}{text}")


def layers(backbone: str) -> None:
    """list the layers of a network"""
    network = load_backbone(backbone, "cpu")
    print(f"{'layer':20s}{'channels':>9s}{'stride':>8s}{'sees (px)':>11s}")
    for layer in network.layers[:-1]:
        field = network.receptive_field(layer)
        print(f"{layer:20s}{network.channels(layer):9d}{field.stride:8d}{field.size:11d}")
    print(f"{'logits':20s}{network.channels('logits'):9d}{'':8s}{'all':>11s}")
