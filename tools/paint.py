"""Draws the lab's own paintings: style sources made of nothing but noise, geometry and simulated brushes.

Lengths are fractions of a picture's longer side, so a painting keeps its composition at every size. In each painting
`c` is the canvas, `x` and `y` are the positions of its pixels, `u` and `v` the same seen from some object.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import interpolate, ndimage, spatial
from skimage import measure
from skimage.color import hsv2rgb, rgb2hsv

Array = np.ndarray
Points = Sequence[tuple[float, float]]
SUPER = 2  # canvas pixels per picture pixel
TAU = 2 * np.pi


def palette(colors: str) -> Array:
    """Hex colors, separated by spaces, as rows of RGB in 0..1."""
    return np.array([list(bytes.fromhex(color)) for color in colors.split()], np.float32) / 255


def ramp(t: Array, colors: str) -> Array:
    """Map 0..1 through evenly spaced colors."""
    stops = palette(colors)
    return np.stack([np.interp(t, np.linspace(0, 1, len(stops)), c) for c in stops.T], -1).astype(np.float32)


def step(low: float, high: float, x: Array) -> Array:
    """Smooth 0 to 1 between low and high (1 to 0 when low > high)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Array, b: Array, t: Array | float) -> Array:
    """Colors a where t is 0, b where it is 1."""
    return a + (b - a) * np.asarray(t, np.float32)[..., None]


def vary(rng: np.random.Generator, colors: Array, hue: float, value: float) -> Array:
    """Give every color its own small accident of hue, saturation and value."""
    hsv = rgb2hsv(np.clip(colors, 0, 1)) + rng.normal(size=colors.shape) * (hue, value, value)
    hsv[..., 0] %= 1
    return hsv2rgb(np.clip(hsv, 0, 1)).astype(np.float32)


def curve(points: Points, count: int = 200) -> Array:
    """A smooth curve through points, as rows of x, y."""
    spline = interpolate.splprep(np.array(points).T, s=0)[0]
    return np.stack(interpolate.splev(np.linspace(0, 1, count), spline), -1)


def flow(psi: Array) -> Array:
    """The direction of the current whose stream lines are the level lines of psi."""
    dy, dx = np.gradient(psi)
    return np.arctan2(-dx, dy)


class Canvas:
    """Color, stroke direction and thickness of the paint; `put` sketches, `paint` and `brush` lay real strokes."""

    def __init__(self, seed: int, size: int, width: float = 1, height: float = 0.75):
        self.rng = np.random.default_rng(seed)
        self.hair = np.random.default_rng(seed)  # apart, so that the size does not change the composition
        self.scale, self.width, self.height = size * SUPER, width, height
        self.shape = round(self.scale * height), round(self.scale * width)
        self.y, self.x = np.mgrid[: self.shape[0], : self.shape[1]].astype(np.float32) / self.scale
        self.rgb = np.ones((*self.shape, 3), np.float32)
        self.angle, self.thick = np.zeros((2, *self.shape), np.float32)

    def noise(self, grain: float, octaves: int = 4, stretch: float = 1) -> Array:
        """Cloudy noise around 0, its largest blobs `grain` high and `stretch` times as wide."""
        total = np.zeros(self.shape, np.float32)
        for cell in grain / 2.0 ** np.arange(octaves):
            grid = self.rng.normal(size=(int(self.height / cell) + 4, int(self.width / cell / stretch) + 4))
            image = Image.fromarray(grid.astype(np.float32))
            total += np.asarray(image.resize(self.shape[::-1], Image.Resampling.BICUBIC)) * (cell / grain)
        return total

    def area(self, points: Array) -> Array:
        """The inside of a polygon, as a mask."""
        image = Image.new("1", self.shape[::-1])
        ImageDraw.Draw(image).polygon([tuple(point) for point in points * self.scale], fill=1)
        return np.asarray(image)

    def radius(self, px: float, py: float, rx: float = 1, ry: float | None = None) -> Array:
        """Distance to a point, in units of rx across and ry down."""
        return np.hypot((self.x - px) / rx, (self.y - py) / (ry or rx))

    def nearest(self, points: Array) -> tuple[Array, Array]:
        """Distance to the nearest of some points, and which it is."""
        return spatial.cKDTree(points).query(np.stack([self.x, self.y], -1))

    def scatter(self, spacing: float) -> Array:
        """Positions about `spacing` apart all over the canvas and a little beyond, in random order, as x and y."""
        grid = np.mgrid[-spacing : self.width + spacing : spacing, -spacing : self.height + spacing : spacing]
        points = grid.reshape(2, -1) + self.rng.uniform(-0.6, 0.6, (2, grid[0].size)) * spacing
        return self.rng.permutation(points, axis=1)

    def at(self, field: Array, x: Array, y: Array) -> Array:
        """Look a field up at positions; outside counts as the border."""
        rows = np.clip(y * self.scale, 0, self.shape[0] - 1).astype(int)
        return field[rows, np.clip(x * self.scale, 0, self.shape[1] - 1).astype(int)]

    def put(self, mask: Array, tone: Array | float, colors: str, angle: Array | float | None = None) -> None:
        """Sketch a thing: its tones through a ramp of colors, and how its strokes shall run."""
        self.rgb[mask] = ramp(np.broadcast_to(tone, self.shape)[mask], colors)
        if angle is not None:
            self.angle[mask] = np.broadcast_to(angle, self.shape)[mask]

    def paint(
        self, *layers: tuple[float, float, float], hue: float = 0.02, value: float = 0.07, **style: float
    ) -> None:
        """Go over the whole sketch with layers of strokes, each of a (length, width, overlap)."""
        sketch = self.rgb.copy()
        self.rgb *= 0.75
        for length, width, overlap in layers:
            x, y = self.scatter(np.sqrt(length * width / overlap))
            size = self.rng.uniform(0.6, 1.2, (2, x.size)) * [[length], [width]]
            self.brush(x, y, self.angle, *size, vary(self.rng, self.at(sketch, x, y), hue, value), **style)

    def stick(self, ends: Array, width: Array | float, color: str, **style: float) -> None:
        """Straight strokes from rows of x0, y0, x1, y1."""
        x0, y0, x1, y1 = ends.T
        colors = vary(self.rng, palette(color).repeat(len(ends), 0), 0.02, 0.05)
        self.brush(
            (x0 + x1) / 2,
            (y0 + y1) / 2,
            np.arctan2(y1 - y0, x1 - x0),
            np.hypot(x1 - x0, y1 - y0),
            width,
            colors,
            **style,
        )

    def brush(
        self,
        x: Array,
        y: Array,
        angle: Array,
        length: Array | float,
        width: Array | float,
        color: Array,
        dry: float = 0.3,
        load: float = 1,
        streak: float = 0.1,
    ) -> None:
        """Lay strokes, the last on top. Angle is a field to follow, or one number per stroke.

        Each bristle has its own tone, starts and lifts at its own moment, and runs out of paint when `dry`.
        """
        knots, count = 12, x.size
        length, width = np.broadcast_to(length, count), np.broadcast_to(width, count)
        along, across = int(length.max() * self.scale * 1.3) + 3, int(width.max() * self.scale * 1.4) + 3
        if count > 1 and count * along * across > 4_000_000:
            for part in slice(count // 2), slice(count // 2, None):
                self.brush(
                    x[part],
                    y[part],
                    angle if angle.ndim == 2 else angle[part],
                    length[part],
                    width[part],
                    color[part],
                    dry,
                    load,
                    streak,
                )
            return
        spine, reach = np.empty((4, knots, count), np.float32), length / (knots - 1)  # x, y and the normal at knots
        for k in range(knots):
            a = self.at(angle, x, y) if angle.ndim == 2 else angle
            if k == 0:  # a stroke is centered on its position
                x, y = x - np.cos(a) * length / 2, y - np.sin(a) * length / 2
            if angle.ndim == 2:  # look half a step ahead, so that circles close
                a = self.at(angle, x + np.cos(a) * reach / 2, y + np.sin(a) * reach / 2)
            spine[:, k] = x, y, -np.sin(a), np.cos(a)
            x, y = x + np.cos(a) * reach, y + np.sin(a) * reach
        s, t = np.linspace(0, 1, along, dtype=np.float32)[:, None], np.linspace(-1, 1, across, dtype=np.float32)
        low = np.minimum((s[:, 0] * (knots - 1)).astype(int), knots - 2)
        part = s * (knots - 1) - low[:, None]
        x, y, nx, ny = np.moveaxis(spine[:, low] * (1 - part) + spine[:, low + 1] * part, 2, 1)[..., None]
        offset = t * np.sqrt(1 - np.abs(2 * s - 1) ** 5) * width[:, None, None] / 2
        rows, columns = (y + ny * offset) * self.scale, (x + nx * offset) * self.scale

        bristle = ndimage.gaussian_filter1d(self.hair.random((count, 1, across), np.float32), 0.7)
        begin, end = self.hair.random((2, count, 1, across), np.float32)
        keep = (s > 0.12 * begin) & (s < 1 - 0.3 * dry * end) & (bristle > dry * (0.15 + 0.6 * s))
        keep &= (rows >= 0) & (rows < self.shape[0]) & (columns >= 0) & (columns < self.shape[1])
        index = rows[keep].astype(int) * self.shape[1] + columns[keep].astype(int)
        tone, ridge, owner = (
            np.broadcast_to(values, keep.shape)[keep]
            for values in (
                bristle - 0.5,
                0.5 + 0.5 * np.exp(-(((np.abs(t) - 0.8) / 0.15) ** 2)) - 0.4 * t**8 - 0.25 * s,
                np.arange(count)[:, None, None],
            )
        )
        self.rgb.reshape(-1, 3)[index] = color[owner] + (2 * streak * tone)[:, None]
        thick = self.thick.reshape(-1)
        thick[index] = 0.4 * thick[index] + load * (ridge + tone)

    def picture(self, depth: float = 0.5) -> Image.Image:
        """The finished picture at picture pixels, its paint lit from the upper left."""
        dy, dx = np.gradient(ndimage.gaussian_filter(self.thick, 0.0006 * self.scale))
        slope = np.tanh(2 * (dx + dy))[..., None]
        lit = self.rgb * (1 + depth * slope) + 0.3 * depth * np.maximum(slope - 0.25, 0)
        return Image.fromarray((np.clip(lit, 0, 1) * 255).astype(np.uint8)).reduce(SUPER)


def to_edge(label: Array, c: Canvas) -> Array:
    """Distance to the nearest border between labels."""
    edge = np.zeros(label.shape, bool)
    edge[1:] |= label[1:] != label[:-1]
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    return ndimage.distance_transform_edt(~edge).astype(np.float32) / c.scale


def lantern_bay(size: int) -> Canvas:
    """A windy night over a bay: impasto strokes along a stream function, after the Post-Impressionists."""
    c = Canvas(11, size, 1, 0.76)
    rng, x, y = c.rng, c.x, c.y
    psi = y + 0.035 * np.sin(7 * x + 1) + 0.012 * c.noise(0.25)
    glow, rings = np.zeros(c.shape), np.zeros(c.shape)
    for px, py, s, turn in [(0.36, 0.2, 0.085, 1), (0.6, 0.29, 0.06, -1), (0.08, 0.32, 0.05, -1)]:
        r = c.radius(px, py, s)
        psi += turn * 2.6 * s * np.exp(-(r**2) / 2)
        rings += 0.5 * np.exp(-((r - 0.8) ** 2)) + 0.5 * np.exp(-((3 * r) ** 2))
    stars = [
        (0.84, 0.14, 0.06),
        (0.1, 0.1, 0.026),
        (0.22, 0.05, 0.018),
        (0.55, 0.07, 0.024),
        (0.68, 0.17, 0.016),
        (0.21, 0.33, 0.017),
        (0.95, 0.36, 0.02),
        (0.47, 0.4, 0.014),
        (0.77, 0.36, 0.016),
    ]
    for px, py, s in stars:
        r = c.radius(px, py, s)
        psi += 6 * s * np.exp(-(r**2) / 2)
        glow = np.maximum(glow, np.exp(-((r / 1.5) ** 2)) * (0.87 + 0.13 * np.cos(r * 5)))
    bands = 0.42 + 0.3 * np.sin(psi * 55 + c.noise(0.2)) + 0.14 * c.noise(0.05, 3, 4) + 0.3 * rings + 0.25 * y
    c.rgb = mix(
        ramp(bands, "0c1445 1b2f86 2a55b5 3f86cf 86bfd8 d9e6c6"),
        ramp(glow, "2f6fb5 6fb7c4 e8d070 ffd23f fff6c8"),
        step(0.08, 0.5, glow),
    )
    c.angle[:] = flow(psi)

    shore = 0.55
    for base, high, colors, k in [(0.48, 0.07, "1a2a63 33569a 6f8fc5", 5), (0.52, 0.07, "0b1638 17405a 4f8a6c", 8)]:
        ridge = base - high * (0.5 * np.sin(k * x + k) + 0.4 * np.sin(2.3 * k * x))
        folds = (y - ridge) * 90 + 0.6 * c.noise(0.1, 2, 2)
        c.put(y > ridge, 0.5 + 0.5 * np.sin(folds), colors, flow(folds))
    lamps = np.r_[rng.normal(0.17, 0.06, 7), rng.normal(0.5, 0.07, 7), rng.normal(0.86, 0.05, 5)]
    heights = rng.uniform(0.02, 0.042, lamps.size)
    for k, (lamp, h) in enumerate(zip(lamps, heights, strict=True)):  # a house around every lamp
        c.put((np.abs(x - lamp) < 0.011) & (y > shore - h), 0.5 - 40 * (x - lamp), "141c48 2a3a78 5a70a8", 1.5)
        roof = (np.abs(x - lamp) < (y - shore + h + 0.018) * 0.9) & (y < shore - h) & (y > shore - h - 0.018)
        c.put(roof, 0.5 - 35 * (x - lamp), "5a2038 a84a3a e89060" if k % 3 else "16304a 3a6a80 78a8a8", 0.7)
    sway = x + 0.012 * c.noise(0.03, 2, 3)
    shine = np.max(
        [step(0.016, 0.002, np.abs(sway - lamp)) * step(shore + rng.uniform(0.1, 0.22), shore, y) for lamp in lamps]
        + [0.9 * step(0.09, 0.02, np.abs(sway - 0.84)) * step(0.9, shore, y)],
        axis=0,
    )
    ripple = 0.3 + 0.14 * c.noise(0.02, 3, 8) + 0.8 * (shore + 0.1 - y)
    c.put(y > shore, ripple, "0a1034 142a66 2a5d98 5fa3b5", 0.12 * np.sin(30 * y + 8 * x))
    c.put((y > shore) & (shine > 0.4), shine, "b5561f f0a030 ffe08a")
    boats = [(0.44, 0.625, 0.12), (0.63, 0.665, 0.18)]
    for px, py, s in boats:
        u, v = (x - px) / s, (y - py) / s
        sail = c.area(np.array([(0.02, -0.95), (0.16, -0.6), (0.5, -0.22), (0.02, -0.2)]) * s + (px, py))
        c.put(sail, 0.1 - 1.1 * v - 0.5 * u, "f8c860 d87838 8a3048 3a1c50", 1.1)
        hull = c.area(np.array([(-0.5, -0.14), (-0.32, 0.06), (0.32, 0.06), (0.56, -0.17), (0, -0.07)]) * s + (px, py))
        c.put(hull, 0.4 - 4 * v, "10082a 6a2030 c85030", 0.15 * u)
        c.put((np.abs(u + 0.04 * np.sin(y * 300)) < 0.36) & (np.abs(v - 0.16) < 0.1), 0.3 + v, "0a0a28 7a3038", 0.0)
    bank = y > 0.71 - 0.13 * step(0.42, 0, x) + 0.012 * np.sin(22 * x)
    c.put(bank, 0.45 + 0.3 * c.noise(0.04), "070b1e 14302f 2f5a35 9a9a3a", -1.2 + 0.6 * c.noise(0.15))

    c.paint((0.07, 0.014, 3), (0.045, 0.008, 3), (0.028, 0.005, 1.5), hue=0.025, value=0.09)
    for px, py, s in stars:
        a, r = rng.uniform(0, TAU, 60), rng.uniform(0, 0.5 * s, 60)
        c.brush(
            px + r * np.cos(a),
            py + r * np.sin(a),
            a + TAU / 4,
            r + 0.006,
            0.005,
            vary(rng, palette("fff2b0").repeat(60, 0), 0.02, 0.06),
            load=1.3,
        )
    c.stick(np.c_[lamps, shore - 0.3 * heights, lamps, shore - 0.7 * heights], 0.007, "ffc840", load=1.5)
    for px, py, s in boats:  # rim, mast and lantern
        rig = np.array(
            [(-0.5, -0.14, 0.06, -0.08), (0, -0.07, 0.56, -0.17), (0, -0.05, 0.02, -1), (-0.25, -0.2, -0.25, -0.3)]
        )
        c.stick(rig[:2] * s + (px, py, px, py), 0.03 * s, "f0a858", dry=0.4)
        c.stick(rig[2:3] * s + (px, py, px, py), 0.025 * s, "24143a", dry=0.2)
        c.stick(rig[3:] * s + (px, py, px, py), 0.06 * s, "ffe88a", load=1.5)
    return c


def carved_sea(size: int) -> Canvas:
    """A breaker in carved lines and a few inks, after the woodblock prints of Japan and Europe."""
    c = Canvas(23, size, 1, 0.74)
    rng, x, y = c.rng, c.x, c.y
    paper, wobble = palette("efe3c8")[0], c.noise(0.04, 3)
    c.rgb[:] = paper
    key = np.zeros(c.shape, bool)  # the black block, printed last

    def lines(phase: Array, tone: Array) -> Array:
        """Carved lines along the levels of phase, each as thick as the tone is dark."""
        return np.abs((phase + 0.06 * wobble) % 1 - 0.5) < 0.5 * tone

    def press(mask: Array, ink: str) -> None:
        """Print a block; the ink is transparent and a little uneven."""
        c.rgb = mix(c.rgb, c.rgb * palette(ink)[0], mask * np.clip(0.93 + 0.1 * c.noise(0.004, 2), 0, 1))

    sun = c.radius(0.66, 0.2)
    cloud = y + 0.03 * np.sin(9 * x + 2) + 0.016 * c.noise(0.2, 2, 3)
    press(step(0.5, -0.1, y) * 0.6 + 0.4 * step(0.1, 0, y), "d9a066")
    press(lines(cloud * 42, 0.75 * step(0.3, 0, y) + 0.18 * np.sin(9 * cloud * TAU)) & (sun > 0.115), "4f7f95")
    press((sun < 0.1) & ~lines(y * 70 + 2 * sun, 0.14 * step(0.16, 0.28, y)), "d8402a")
    key |= lines(np.arctan2(y - 0.2, x - 0.66) * 72 / TAU, 0.5 - 3.2 * sun) & (sun > 0.115)
    swells = [(0.43, 0.025, 8, 0.3), (0.48, 0.04, 6.3, 2), (0.55, 0.05, 5.2, 4.4), (0.65, 0.06, 4.3, 1)]
    waves = [
        y > base - high * (1.6 * np.abs(np.sin(k * x + shift)) ** 3 - 0.4) + 0.002 * wobble
        for base, high, k, shift in swells
    ]
    crest = curve(
        [
            (1.02, 0.72),
            (0.8, 0.6),
            (0.62, 0.36),
            (0.5, 0.17),
            (0.37, 0.07),
            (0.23, 0.075),
            (0.12, 0.16),
            (0.085, 0.28),
            (0.13, 0.33),
            (0.155, 0.26),
            (0.22, 0.21),
            (0.29, 0.26),
            (0.32, 0.37),
            (0.28, 0.5),
            (0.17, 0.6),
            (-0.02, 0.66),
        ]
    )
    breaker = c.area(np.vstack([crest, [(-0.02, 0.8), (1.02, 0.8)]]))
    for wave in [*waves[:3], breaker, waves[3]]:
        deep = ndimage.distance_transform_edt(wave) / c.scale
        outside = ndimage.distance_transform_edt(~wave) / c.scale
        c.rgb[wave] = paper
        key &= ~wave
        claws = 0.5 + 0.5 * np.sin(95 * x + 3 * np.sin(60 * y) + 3 * wobble)
        lip = 0.04 * step(0.46, 0.28, x) * step(0.62, 0.4, y) if wave is breaker else 0.004
        foam = deep < (0.012 + lip) * (0.35 + claws)
        body, shade = wave & ~foam, step(0, 0.16, deep) + 0.16 * c.noise(0.1, 3)
        press(body, "a9cdd0")
        press(body & lines(deep * 38 + 0.25, 0.15 + 0.75 * shade), "5590ab")
        press(body & lines(deep * 38, 0.9 * shade - 0.1), "2b4a78")
        edge = np.abs(ndimage.gaussian_filter(foam.astype(np.float32), 0.0022 * c.scale) - 0.5) < 0.32
        key |= (edge & wave & (deep > 0.002)) | ((outside < 0.0035 + 0.002 * wobble) & ~wave)
        key |= (body & lines(deep * 76, 0.9 * shade - 0.62)) | (foam & lines(claws * 2.5, 0.14) & (deep > 0.008))
    drops = rng.normal((0.13, 0.2), (0.1, 0.12), (260, 2))  # spray
    drops = drops[~c.at(breaker | waves[0], *drops.T)]
    far, which = c.nearest(drops)
    size_of = (0.0012 + 0.005 * rng.random(len(drops)) ** 3)[which]
    c.rgb[far < size_of] = paper
    key = np.where(far < size_of + 0.0012, (far > size_of) & (size_of > 0.0028), key)
    press(key, "1c2033")
    c.rgb *= 1 + 0.03 * c.noise(0.003, 2, 9)[..., None]
    c.thick = 0.12 * c.noise(0.004, 2, 5) - 0.3 * key
    return c


def window_of_the_sun(size: int) -> Canvas:
    """A tree before the sun in leaded glass, after Gothic and Art Nouveau windows."""
    c = Canvas(37, size, 0.76, 1)
    rng, x, y = c.rng, c.x, c.y
    r, turn = c.radius(0.38, 0.37) + 0.006 * c.noise(0.12, 2), np.arctan2(y - 0.37, x - 0.38) / TAU + 0.5
    glass = np.digitize(r, [0.05, 0.1, 0.16, 0.22, 0.285, 0.35, 0.42])
    count = np.array([1, 9, 14, 18, 22, 26, 30, 32])[glass]
    pieces = 100 * glass + ((turn + 0.5 / count * (glass % 2) + 0.006 * c.noise(0.2, 2)) * count % count).astype(int)

    def inlay(mask: Array, kind: int, cut: Array) -> None:
        """Replace the glass inside a mask by another kind, cut into pieces."""
        pieces[mask], glass[mask] = 1000 * kind + cut.astype(int)[mask], kind

    for k, (base, slope) in enumerate([(0.66, 0.06), (0.74, -0.04), (0.82, 0.08)]):  # fields
        top = base + 0.03 * np.sin(9 * x + 2 * k) + slope * (x - 0.38)
        band = np.floor((y - top) / 0.045 + 0.3 * np.sin(20 * x))
        inlay(y > top, 8 + k, 60 + 40 * band + np.floor(x * (8 + 2 * k) + 0.5 * band + 0.6 * c.noise(0.2, 2)))
    river = np.abs(x - 0.38 - 0.16 * np.sin(11 * (y - 0.7)) * step(0.6, 1, y)) < 0.02 + 0.32 * (y - 0.68)
    inlay(river & (y > 0.69), 11, 20 + (y + 0.012 * np.sin(30 * x)) * 40)
    limbs = [
        ([(0.35, 1.02), (0.4, 0.82), (0.365, 0.66), (0.385, 0.53)], 0.09, 0.034),
        ([(0.38, 0.54), (0.42, 0.38), (0.36, 0.27), (0.41, 0.15)], 0.032, 0.008),
        ([(0.38, 0.6), (0.29, 0.47), (0.17, 0.44), (0.11, 0.33)], 0.032, 0.009),
        ([(0.38, 0.57), (0.48, 0.46), (0.58, 0.46), (0.66, 0.36)], 0.032, 0.009),
        ([(0.38, 0.56), (0.34, 0.42), (0.27, 0.32), (0.22, 0.2)], 0.026, 0.008),
        ([(0.385, 0.56), (0.45, 0.4), (0.54, 0.31), (0.57, 0.18)], 0.026, 0.008),
    ]
    for k, (points, thick, thin) in enumerate(limbs):
        far, along = c.nearest(curve(points))
        joint = along > 172 if k == 0 else along < 34  # all limbs grow out of one piece
        inlay(far < np.linspace(thick, thin, 200)[along] / 2, 12, np.where(joint, 1, along // 28 + 10 * k))
    crown = np.array([points[-1] for points, *_ in limbs[1:]] + [(0.3, 0.11), (0.5, 0.1), (0.15, 0.47), (0.62, 0.48)])
    inlay(c.nearest(crown)[0] + 0.012 * c.noise(0.05, 2) < 0.078, 13, c.nearest(c.scatter(0.034).T)[1])
    sides = np.stack([x, c.width - x, y, c.height - y])
    side, margin, other = sides.argmin(0), sides.min(0), np.where(sides.argmin(0) < 2, y, x)
    inlay(margin < 0.04, 14, 100 * side + other / 0.0635)
    inlay(margin < 0.012, 15, 100 * side + other / 0.127)

    pieces = np.unique(pieces, return_inverse=True)[1].reshape(c.shape)
    number = np.arange(pieces.max() + 1)
    hues = [
        palette(colors)
        for colors in (
            "fff3b0",
            "ffe97a ffdf50",
            "ffc62e ffb020 ffd860",
            "ff9a20 ff7a1c f8b030",
            "f4582c e8403a ff8030",
            "d8285a b8286a f05060",
            "7a2a9a 9a2f86 c03880",
            "2a3ab0 3048c8 5a34b0 2a60c0",
            "58b8a0 3f9aa8 80c890",
            "2f9a50 57b03c 1f8468",
            "0f6a4a 2a8038 0f5560",
            "3fb8e0 2a8fd0 90e0e8 2070b8",
            "6a3418 82461c 53280f",
            "3f9a2a 86b820 d0a818 1f7a3a e07818",
            "a01028 1c2f98 c01830 283fb0",
            "e8b030 c88a20",
        )
    ]
    tint = np.array([rng.choice(hues[kind]) for kind in ndimage.maximum(glass, pieces, number)])
    tint = vary(rng, tint, 0.012, 0.07)
    middle = np.stack([ndimage.mean(x, pieces, number), ndimage.mean(y, pieces, number)])[:, pieces]
    lean = rng.uniform(0, TAU, len(number))[pieces]
    u, v = x - middle[0], y - middle[1]
    u, v = u * np.cos(lean) + v * np.sin(lean), np.abs(v * np.cos(lean) - u * np.sin(lean))
    streaks = 0.12 * np.where(pieces % 2, c.noise(0.012, 3, 7), c.noise(0.09, 5, 0.2))
    streaks += 0.25 * (c.noise(0.006, 1) > 2.3)  # bubbles
    gap = to_edge(pieces, c)
    light = (1 + streaks + np.clip(9 * u, -0.25, 0.25)) * (0.45 + 0.6 * step(0.001, 0.016, gap)) * (1.22 - 0.5 * r)
    c.rgb = tint[pieces] * light[..., None]
    veins = (glass == 13) & ((v < 0.0009) | (((u + v) * 170 % 1 < 0.17) & (gap > 0.006)))  # enamel on the leaves
    c.rgb = mix(c.rgb, c.rgb * 0.35, ndimage.gaussian_filter(veins.astype(np.float32), 0.8))
    c.rgb += 0.3 * ndimage.gaussian_filter(np.maximum(c.rgb - 0.55, 0), (0.02 * c.scale, 0.02 * c.scale, 0))
    lead = step(0.0042, 0.003, gap + 0.0005 * c.noise(0.02, 2))
    c.rgb = mix(c.rgb, ramp(0.5 + 0.2 * c.noise(0.01, 3), "0c0d12 1d2028 3a3d46"), lead)
    c.thick = 3 * lead * np.sqrt(np.maximum(1 - (gap / 0.0045) ** 2, 0)) + 0.6 * streaks
    return c


def noon_pond(size: int) -> Canvas:
    """A garden pond in dots of unmixed pigment, after the Divisionists."""
    c = Canvas(41, size, 1, 0.72)
    rng, x, y = c.rng, c.x, c.y
    shore = 0.38 + 0.012 * np.sin(8 * x)
    level = np.where(y > shore, 2 * shore - y, y) + 0.004 * np.sin(260 * y + 20 * x)  # the pond mirrors the garden
    bushy, all_over = 0.1 * c.noise(0.05, 3), np.ones(c.shape, bool)
    c.put(all_over, level / 0.36, "5f9fe0 8fc4ee c8e0e8 f6e6c0")
    cloud = c.at(step(0.1, 1.3, c.noise(0.16, 4, 2.2)), x, level) * step(0.32, 0.2, level)
    c.rgb = mix(c.rgb, palette("fff4e4")[0], 0.9 * cloud)
    hills = 0.3 - 0.025 * np.sin(6 * x + 1) - 0.01 * np.sin(31 * x)
    c.put(level > hills, (level - 0.26) / 0.12, "8f9fd8 6f9fb0 7fb070")
    trees = [(0.08, 0.2, 0.1, 0.17), (0.24, 0.29, 0.06, 0.09), (0.93, 0.19, 0.1, 0.19), (0.78, 0.29, 0.055, 0.09)]
    trees += [(0.345 + 0.062 * k, 0.25 + 0.012 * (k % 2), 0.021, 0.14 - 0.02 * (k % 2)) for k in range(5)]
    for px, py, rx, ry in trees:
        u, v = (x - px) / rx, (level - py) / ry
        c.put(
            np.hypot(u, v) < 1 + 2 * bushy,
            0.48 - 0.36 * u - 0.3 * v + 1.8 * bushy,
            "2a2a78 1f5a6a 2f8a48 8fc43a f4dc50",
        )
    water = y > shore
    c.rgb = mix(c.rgb, c.rgb * palette("7fa8e8")[0] + 0.05, 0.55 * water)
    c.rgb = mix(c.rgb, palette("e8f4ff")[0], 0.6 * water * step(1.2, 2.2, c.noise(0.012, 2, 9)))
    for depth in np.sort(rng.random(46)):  # lily pads, smaller with distance
        px, py = rng.uniform(0.3, 0.98), 0.42 + 0.24 * depth
        s = 0.016 + 0.14 * (py - 0.4)
        c.put(c.radius(px, py, s, 0.36 * s) < 1, 0.5 - 0.5 * (x - px) / s, "1f6a58 4fa850 c8e070")
        if rng.random() < 0.45:
            c.put(c.radius(px, py - 0.25 * s, 0.42 * s, 0.3 * s) < 1, 0.5 - (x - px) / s, "d84a8a f49ab8 fff0e0")
    bank = y > 0.66 - 0.36 * step(0.5, -0.15, x) + 0.02 * np.sin(13 * x) + 0.012 * bushy
    c.put(bank, 0.45 + 0.3 * c.noise(0.06, 3) + 0.5 * (0.6 - y), "1f3a78 2a7a58 5faa3a c8d848 f8e860")
    c.put(bank & (c.noise(0.014, 2) > 1.7 - 1.2 * y), 0.5 + 0.4 * c.noise(0.02, 1), "c02848 f05038 f8a0b8")  # poppies
    path = np.abs(x - 0.02 - 0.55 * (y - 0.4) - 0.03 * np.sin(14 * y)) < 0.012 + 0.24 * (y - 0.42)
    c.put(path & bank, 0.55 + 0.4 * c.noise(0.05, 2, 2), "7f6fc0 d8a0a8 f8d898 fff0c0")
    u, v = (x - 0.17) / 0.2, (0.54 - y) / 0.2  # a lady in white with a parasol, and her shadow
    c.put(np.hypot((u - 0.42) / 0.5, (v + 0.02) / 0.08) < 1, 0.5, "3a3488")
    dress = (np.abs(u) < 0.25 - 0.5 * v + 0.4 * v * v) & (v > 0) & (v < 0.75)
    c.put(dress, 0.55 - 4 * u, "6a58b8 d8a8d8 fff8ec fff0c0")
    c.put((np.abs(v - 0.48) < 0.02) & (np.abs(u) < 0.1), 0.5, "2848a8")
    c.put(np.hypot(u, v - 0.8) < 0.07, 0.5 - 6 * u, "8a4a3a e8a878 ffd8a8")
    c.put((np.abs(u - 0.12 + 0.1 * v) < 0.018) & (v > 0.45) & (v < 1), 0.5, "40204a")
    c.put(
        (np.hypot(u / 0.33, (v - 0.88) / 0.24) < 1) & (v > 0.9 - 0.05 * np.abs(np.sin(14 * u))),
        0.5 - 1.8 * u,
        "a01838 e84828 ffb040 ffe080",
    )

    pigments = palette(
        "fff8e8 ffe040 ffb428 f47a28 d83030 e05a98 8a48b8 3a2f98 1f4fb8 4a98e0 98d0f0 1f7a78 2a9a48 "
        "8cc83c d8e468 f8d0b0 182048 b0a0d8"
    )
    sketch, nearest = c.rgb.copy(), spatial.cKDTree(pigments)
    for gap, dot, wild in [(0.0075, 0.0125, 0.1), (0.0055, 0.0078, 0.14), (0.0062, 0.006, 0.17)]:
        px, py = c.scatter(gap)
        wanted = c.at(sketch, px, py)
        color = pigments[nearest.query(wanted + rng.normal(size=wanted.shape) * wild)[1]]
        c.brush(
            px,
            py,
            rng.uniform(0, TAU, px.size),
            *(dot * rng.uniform(0.75, 1.15, (2, px.size))),
            vary(rng, mix(color, wanted, 0.25), 0.01, 0.04),
            dry=0.05,
            streak=0.05,
        )
    return c


def table_with_guitar(size: int) -> Canvas:
    """A guitar, a bottle, a glass and a newspaper seen from many sides at once, after the Cubists."""
    c = Canvas(53, size, 0.8, 1)
    rng, x, y = c.rng, c.x, c.y
    bits = np.zeros(c.shape, np.int64)
    for k in range(18):  # straight cuts through the middle of things
        a = rng.choice([0.35, 1.2, 1.95, 2.75]) + rng.normal() * 0.16
        bits += ((x - 0.4 - 0.17 * rng.normal()) * np.cos(a) + (y - 0.5 - 0.22 * rng.normal()) * np.sin(a) > 0) << k
    facet = np.unique(bits, return_inverse=True)[1].reshape(c.shape)
    number = np.arange(facet.max() + 1)

    def each(values: Array) -> Array:
        """Spread one value per facet over the facets."""
        return values.astype(np.float32)[facet]

    def chance(p: float) -> Array:
        """A random choice of facets."""
        return each(rng.random(number.size) < p) > 0

    cx, cy = each(ndimage.mean(x, facet, number)), each(ndimage.mean(y, facet, number))
    turn, grow = each(rng.normal(0, 0.12, number.size)), each(rng.uniform(0.8, 1.1, number.size))
    shift = rng.normal(0, 0.018, (2, number.size))
    u = cx + each(shift[0]) + ((x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)) * grow
    v = cy + each(shift[1]) + ((x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)) * grow
    lean = rng.uniform(0, TAU, number.size)
    slope = (x - cx) * np.cos(each(lean)) + (y - cy) * np.sin(each(lean))
    low, high = each(ndimage.minimum(slope, facet, number)), each(ndimage.maximum(slope, facet, number))
    plane = (slope - low) / (high - low + 1e-6)  # 0 to 1 across each facet
    c.angle[:] = each(lean + TAU / 4)

    c.put(plane >= 0, 0.5 + 0.8 * (u - 0.4) + 0.15 * c.noise(0.2), "22405c 6a8890 c8ac70 f0d8a0")
    tints = palette("2e2a2a c8a868 d8b878 ecdcb4 4a6070 8a4a24 c07c38 243444 b0b4a0")[rng.integers(9, size=number.size)]
    c.rgb = mix(c.rgb, np.stack([each(column) for column in tints.T], -1), 0.6 * chance(0.4))
    stipple = np.sin((u + v) * 330) * np.sin((u - v) * 330) > 0.45
    c.put(stipple & chance(0.16), 0.5, "f0e2bc")
    c.put(
        np.hypot((u - 0.4) / 0.37, (v - 0.74) / 0.17) < 1,
        0.5 + 0.35 * np.sin(90 * v + 6 * c.noise(0.1, 2, 5)),
        "4a2814 8a5428 c88838",
    )
    page = np.maximum(np.abs(u - 0.6 + 0.3 * (v - 0.72)) / 0.13, np.abs(v - 0.72) / 0.1)
    c.put(page < 1, 0.5, "ece2c8")
    gu, gv = (u - 0.36) * 0.94 + (v - 0.6) * 0.34, (v - 0.6) * 0.94 - (u - 0.36) * 0.34  # along the guitar
    body = np.minimum(np.hypot(gu, gv - 0.1) / 0.16, np.hypot(gu, gv + 0.09) / 0.122)
    hole, neck = np.hypot(gu, gv + 0.02), (gv < 0) & (gv > -0.5)
    c.put(body < 1, 1.1 - 0.5 * body + 2 * gu, "5a2a10 a85a1c e09a3c f8d080")
    c.put((body < 1) & (body > 0.9), 0.5, "3a1a0c")
    c.put(hole < 0.05, hole * 20, "140c0a 2a1810 7a4820")
    c.put((np.abs(gu) < np.where(gv < -0.4, 0.045, 0.026)) & neck, 0.5 + 18 * gu, "1a1210 4a3020 8a6840")
    c.put((np.abs(gu) < 0.06) & (np.abs(gv - 0.15) < 0.012), 0.5, "2a1408")
    bottle = np.abs(u - 0.16) - np.clip(0.027 + 1.1 * (v - 0.3), 0.027, 0.072) + ((v < 0.14) | (v > 0.66))
    c.put(bottle < 0, 0.5 + (u - 0.16) * 7, "b8d8a0 3f8a60 0f4a38 08201c")
    c.put((bottle < -0.015) & (np.abs(v - 0.5) < 0.065), 0.5 + (u - 0.16) * 6, "f8e8b8 d83a20 7a1a14")
    cup = np.abs(u - 0.62) - 0.02 - 0.045 * step(0.5, 0.36, v) + (np.abs(v - 0.445) > 0.115)
    c.put(cup < 0, 0.5 + 8 * (u - 0.62), "f0ece0 9ac0d0 3f78a8 c8e4f0")
    c.put((cup < 0) & (v > 0.41) & (v < 0.49), 0.5 + 8 * (u - 0.62), "e84a20 8a1a18")
    for px, py in [(0.54, 0.6), (0.65, 0.62), (0.27, 0.83)]:  # oranges
        ball = np.hypot(u - px, v - py) / 0.045
        c.put(ball < 1, 0.2 + ball * 0.6 + 6 * (u - px), "f8d860 f09020 b8401c 4a1a18")

    c.rgb *= (0.32 + 1.06 * plane)[..., None]
    c.paint((0.03, 0.01, 3), (0.016, 0.0045, 3), hue=0.014, value=0.055)
    gap, worn = to_edge(facet, c), step(-1.4, -0.5, c.noise(0.02, 3))

    def draw(lines: Array, color: str) -> None:
        """Charcoal or chalk over the paint, worn in places."""
        soft = ndimage.gaussian_filter(lines.astype(np.float32), 0.0005 * c.scale)
        c.rgb = mix(c.rgb, palette(color)[0], 0.85 * soft * worn)

    draw((np.abs((slope * 150 + 0.15 * c.noise(0.05)) % 1 - 0.5) < 0.12) & chance(0.4) & (plane < 0.7), "2a221c")
    draw((gap < 0.002) & (plane < 0.6), "17120e")
    draw((gap < 0.0033) & (plane > 0.85), "f8eed4")
    draw(
        np.min(
            [
                np.abs(body - 1) * 0.14,
                np.abs(hole - 0.056),
                np.abs(cup),
                np.abs(bottle),
                np.abs(np.abs(gu) - 0.028) + ~neck,
                np.abs(page - 1) * 0.1,
            ],
            axis=0,
        )
        < 0.0023,
        "1c140e",
    )
    draw((np.abs((gu + 0.02) % 0.01 - 0.005) < 0.001) & (np.abs(gu) < 0.02) & (np.abs(gv + 0.165) < 0.315), "f8ecc8")
    text = (np.sin(v * 420) > 0.1) & (c.noise(0.012, 1, 1.5) > -0.5) & (np.abs(v - 0.66) > 0.012)
    draw(text & (page < 0.86), "1c1814")
    return c


def mist_peaks(size: int) -> Canvas:
    """Peaks in mist in ink on silk, after the Chinese literati painters."""
    c = Canvas(72, size, 0.72, 1)
    x, y = c.x, c.y
    silk = c.noise(0.004, 2, 8) + c.noise(0.03, 1, 0.12)
    c.put(y >= 0, 0.6 + 0.1 * c.noise(0.3) + 0.04 * silk, "c8b48a e8dabc f4ecd8")
    wash, rough = c.noise(0.12, 5), c.noise(0.012, 4)

    def ink(amount: Array, color: str) -> None:
        c.rgb = mix(c.rgb, palette(color)[0], np.clip(amount, 0, 0.95))

    ink((0.8 + 0.08 * wash) * step(0.052, 0.047, c.radius(0.53, 0.13) + 0.001 * rough) * step(0.3, 0.06, y), "c83c1c")
    layers = [
        (0.36, 0.27, "7f8fa0", 9, 0.03),
        (0.45, 0.42, "5a6a7c", 8, 0.04),
        (0.58, 0.65, "38424c", 7, 0.05),
        (0.76, 0.9, "1c2126", 5, 0.07),
        (0.99, 1.0, "0c0d10", 4, 0.09),
    ]
    for k, (base, strength, color, count, wide) in enumerate(layers):
        rng = c.rng = np.random.default_rng(72 + k)  # peaks and pines stay where they are at every size
        line, face, big = np.full(c.shape[1], base), np.zeros(c.shape[1]), 0.7 + 0.15 * k
        for _ in range(count):
            px = rng.uniform(-0.05, 0.77) if k < 4 else rng.choice([rng.uniform(0.45, 0.8), rng.uniform(-0.1, 0.1)])
            s, high = wide * rng.uniform(0.5, 1.4), rng.uniform(0.4, 1) * (0.24 + 0.02 * k)
            bump = base - high * np.exp(-(np.abs((x[0] - px) / s) ** 2.2))
            face = np.where(bump < line, (x[0] - px) / s, face)  # which side of its peak a column is on
            line = np.minimum(line, bump)
        face = ndimage.gaussian_filter1d(face, 0.012 * c.scale)
        depth = y - line - 0.006 * c.noise(0.05, 5)[0] - 0.003 * rough[0]
        inside, shade = step(-0.0006, 0.0012, depth), 0.55 + 0.2 * np.tanh(2 * face)
        fade = np.exp(-np.maximum(depth, 0) / (0.1 + 0.035 * k)) * (1 + 0.25 * wash)
        ink(0.85 * inside * step(0.12, 0, depth), "ece2cc")  # mist hides what is behind
        ink(inside * strength * fade * (shade + 0.1 * rough + 0.12 * (k > 2)), color)
        ink(inside * strength * step(0.012, 0.001, depth - 0.003 * rough) * 0.8, color)
        px, py = c.scatter(0.0055 + 0.0004 * k)  # axe-cut strokes down the shaded faces
        d, f = c.at(depth, px, py), c.at(np.broadcast_to(face, c.shape), px, py)
        chance, long, broad, dark = rng.random((4, px.size))
        cut = (d > 0.004) & (chance < np.exp(-d / (0.06 + 0.02 * k)) * (0.5 + 0.35 * np.tanh(2 * f)))
        tone = mix(c.at(c.rgb, px, py), palette(color)[0], (0.25 + 0.7 * dark) * strength)
        c.brush(
            *(
                values[cut]
                for values in (
                    px,
                    py,
                    1.57 - 0.5 * f + rng.normal(0, 0.25, px.size),
                    (0.01 + 0.035 * long) * big,
                    (0.0015 + 0.0055 * broad) * big,
                    tone,
                )
            ),
            dry=0.9,
            load=0,
        )
        for px in rng.uniform(0, 0.72, 16 + 12 * k) if k > 1 else []:  # pines on the crests
            py, s, n = line[min(int(px * c.scale), c.shape[1] - 1)], (0.008 + 0.0055 * k) * rng.uniform(0.5, 1.3), 14
            if py < base - 0.05:
                up = np.linspace(0.3, 1.9, n) * s
                c.stick(np.array([[px, py + 0.4 * s, px + 0.1 * s, py - 2 * s]]), 0.12 * s, color, load=0)
                c.brush(
                    px + rng.normal(0, 0.28, n) * (2.2 * s - up),
                    py - up,
                    rng.normal(0, 0.25, n),
                    (2.3 * s - up) * 0.9,
                    0.22 * s,
                    mix(palette(color), palette("1f3a34"), 0.3).repeat(n, 0),
                    dry=0.6,
                    load=0,
                )
    for k in range(5):  # a column of grass script and the painter's seal
        n = rng.integers(4, 7)
        c.brush(
            0.075 + rng.normal(0, 0.007, n),
            0.09 + 0.034 * k + rng.normal(0, 0.007, n),
            rng.choice([0, 0.1, 1.4, 1.6, 2.2], n),
            rng.uniform(0.008, 0.026, n),
            rng.uniform(0.003, 0.005, n),
            palette("16161a").repeat(n, 0),
            dry=0.5,
            load=0,
        )
    u, v = np.abs(x - 0.075), np.abs(y - 0.285)
    glyph = ((np.abs(u - 0.0085) < 0.0016) | (np.abs(v % 0.008 - 0.004) < 0.0014)) & (np.maximum(u, v) < 0.0125)
    ink(0.9 * ((np.maximum(u, v) < 0.017) & ~glyph & (rough > -2)), "b8241c")
    return c


def harbour_in_red(size: int) -> Canvas:
    """Boats in pure color laid with a palette knife, after the Fauves."""
    c = Canvas(71, size, 1, 0.8)
    rng, x, y = c.rng, c.x, c.y
    quay, soft = 0.4, 0.012 * c.noise(0.08, 2)
    level = np.where(y > quay, quay - 0.85 * (y - quay), y)  # the water mirrors the town
    c.put(
        y >= 0,
        level / 0.3 + 9 * soft + 0.15 * np.sin(5 * x),
        "2f5fd0 48a8e0 f0a8b8 ffc848 ff8a30",
        0.5 * np.sin(4 * x + 9 * y) + 10 * soft,
    )
    for k, colors in enumerate(["7a4ac8 4a58c8 38a0a0", "e0386a c8407a 8a3aa8", "2a9a58 68b838 f0c828"]):
        hill = 0.17 + 0.05 * k + 0.05 * np.sin(4.5 * x + 2.4 * k) + soft
        c.put(level > hill, (level - hill) * 7 + 4 * soft, colors, 0.35 * np.cos(4.5 * x + 2.4 * k))
    walls = ["fff0d0 f8c878", "ffd0c0 f07a70", "f8e878 e8a020", "d8e8f8 6a90d8"]
    for k in range(26):  # houses climb the hill
        w, h, foot = rng.uniform(0.02, 0.035), 0.06, quay - 0.01 - 0.1 * rng.random() * (k < 16)
        u, v = (x - rng.uniform(0, 1)) / w, level - foot + h
        c.put((np.abs(u) < 1) & (v > 0) & (v < h), 0.5 + u / 2, rng.choice(walls), 1.5)
        c.put((np.abs(u) < (v + 0.028) / 0.022) & (v < 0) & (v > -0.028), 0.5 + u / 2, "f05a28 c82030 7a1a50", 0.3)
        c.put((np.abs(np.abs(u) - 0.45) < 0.17) & (np.abs(v - 0.4 * h) < 0.011), 0.5, "1f3a98", 1.5)
    c.put(np.abs(y - quay) < 0.012, 0.5 + 3 * soft, "8a3a68 e0704a", 0.0)
    chop = (y > quay) & (c.noise(0.02, 2, 5) > 0.75)
    c.put(chop, 0.5 + 0.4 * c.noise(0.05, 1), "1a3aa8 28a890 f8e8b0 ff9a50", 0.0)
    boats = [
        (0.36, 0.46, 0.05, "ffb060 e85a30 a02848"),
        (0.63, 0.47, 0.05, "f0f0ff 90b8f0 4a70c8"),
        (0.5, 0.51, 0.09, "fff0c0 ffc030 f08020"),
        (0.17, 0.56, 0.13, "ff7a20 f0401f c02048"),
        (0.79, 0.6, 0.16, "f83a2a d01840 781a60"),
    ]
    for px, py, s, sail in boats:
        for flip in (-0.8, 1):  # first the reflection, then the boat
            u, v = (x - px) / s, (py - y) / s * flip
            if flip < 0:
                u = u + 0.1 * np.sin(y * 130) + 20 * soft * (y - py)
            leech, luff = np.sqrt(np.clip(2.7 - v, 0, 2.3) / 2.3), np.clip(1.8 - v, 0, 1.4) / 1.4
            c.put((v > 0.4) & (v < 2.4 + 0.5 * u) & (u > 0.03) & (u < 0.25 + 0.6 * leech), 0.1 + u, sail, 1.3)
            c.put((v > 0.4) & (u < -0.03) & (u > -0.62 * luff), 0.3 - u, "fff4d8 f8c080 e07048", 2.0)
            hull = (v > -0.06) & (v < 0.34 + 0.16 * u * u) & (v < 1) & (np.abs(u - 0.05) < 0.74 + 0.8 * v)
            c.put(hull, 2.6 * v + 0.1, "141040 1c1c70 28a880 f4f0d0 e03828", 0.05)
    c.paint((0.07, 0.036, 2.5), (0.036, 0.017, 1.6), (0.018, 0.007, 1.1), hue=0.03, value=0.09, dry=0.12, streak=0.05)
    for px, py, s, _ in boats:  # dark contours: waterline, mast, boom, stays
        ends = [(-0.7, -0.05, 0.8, -0.03), (0, 0, 0.02, 2.75), (0, 0.38, 0.9, 0.45), (-0.62, 0.38, 0, 1.9)]
        ends = np.array(ends) * (s, -s, s, -s) + (px, py, px, py)
        c.stick(ends, np.array([0.05, 0.05, 0.03, 0.02]) * s, "24184e", dry=0.2)
    return c


def koi_mosaic(size: int) -> Canvas:
    """Two carp in a whirl of stone and gold tiles laid in rows along the forms, after Roman mosaics."""
    c = Canvas(83, size, 1, 1)
    rng, x, y = c.rng, c.x, c.y
    swirl = np.arctan2(y - 0.5, x - 0.5)
    c.put(
        y >= 0,
        0.45 + 0.32 * np.sin(5 * swirl + 26 * c.radius(0.5, 0.5)) + 0.14 * c.noise(0.1),
        "0a2f48 0f5a78 1f8a98 58b8b0 b8e0d0",
    )
    form = np.zeros(c.shape, int)  # rows of tiles follow the borders between forms

    for k, (px, py, s, turn) in enumerate(
        [
            (0.2, 0.17, 0.07, 1),
            (0.82, 0.83, 0.075, 4),
            (0.5, 0.5, 0.075, 2.3),
            (0.15, 0.85, 0.05, 5),
            (0.88, 0.17, 0.045, 0),
        ]
    ):  # lily pads
        pad, a = c.radius(px, py), (swirl if k == 2 else np.arctan2(y - py, x - px) - turn) % TAU
        leaf = (pad < s) & (a > 0.4)
        c.put(leaf, 0.3 + 0.4 * np.abs(np.sin(a * 4)) + 5 * (s - pad), "0f4a2a 2f8a3a 8ac03a d8e078")
        form[leaf] = 1
    for k, color in enumerate(["c82868", "f088b0", "fff0d0"]):  # a lotus on the middle pad
        petal = c.radius(0.5, 0.5) < (0.062 - 0.02 * k) * (0.65 + 0.35 * np.abs(np.sin(swirl * 2.5 + k)))
        c.put(petal, 0.5, color)
        form[petal] = 2 + k

    def swim(points: Points, colors: str) -> None:
        """One fish along a curve, head first."""
        far, along = c.nearest(curve(points, 400))
        s = along / 399
        half = np.interp(
            s,
            [0, 0.02, 0.06, 0.14, 0.28, 0.45, 0.7, 0.78, 0.86, 1],
            [0.03, 0.04, 0.053, 0.066, 0.076, 0.07, 0.03, 0.026, 0.05, 0.1],
        )
        sweep, flank = far - half, far / half
        pair = np.maximum(
            0.075 * np.exp(-(((s - 0.26 - 1.3 * sweep) / 0.055) ** 2)),
            0.035 * np.exp(-(((s - 0.6 - sweep) / 0.04) ** 2)),
        )
        fork = (s < 1 - 0.11 * (1 - np.clip(flank, 0, 1)) ** 0.7) & (along < 399)
        tail, fins = (s > 0.76) & (sweep < 0) & fork, (s < 0.76) & (sweep < pair) & (sweep >= 0)
        trunk = (s <= 0.76) & (sweep < 0)
        c.put(tail | fins, 0.5 + 0.5 * np.sin(np.where(tail, flank * 22, s * 190)), "b04a20 f0a060 fff4e0")
        patch, scales = c.noise(0.16, 2) + 0.5 * np.sin(24 * s), 0.12 * np.sin(s * 240) * np.sin(flank * 14)
        c.put(trunk, 1.25 - 0.9 * flank + scales, "b8a890 f4ecd8 fffaf0")
        c.put(trunk & (patch > -0.25) & (s > 0.1), 1.15 - 0.9 * flank + scales, colors)
        c.put(trunk & (patch < -1) & (s > 0.12), 0.5, "1a1a28")
        c.put(trunk & (flank > 0.86), 0.5, "7a2410")
        form[tail | fins], form[trunk] = 5, 6
        eye = np.hypot((s - 0.08) * 0.7, far - 0.034)
        c.put(trunk & (eye < 0.02), eye * 60, "101014 f8d048 f8d048")
        form[trunk & (eye < 0.02)] = 7

    swim(
        [(0.22, 0.42), (0.3, 0.29), (0.46, 0.21), (0.64, 0.25), (0.75, 0.38), (0.77, 0.52)],
        "8a1c0a e0401a ff7a28 ffb060",
    )
    swim(
        [(0.78, 0.6), (0.69, 0.73), (0.53, 0.79), (0.36, 0.75), (0.25, 0.62), (0.23, 0.48)],
        "7a4a08 d89010 ffc830 fff0a0",
    )
    margin = np.min([x, 1 - x, y, 1 - y], axis=0)
    place = np.where((margin == x) | (margin == 1 - x), y, x) * 13 % 1 - 0.5
    c.put(margin < 0.066, 0.5 + 0.4 * c.noise(0.05, 2), "6a1024 a02038")
    c.put(np.abs(margin - 0.033) + 0.05 * np.abs(place) < 0.015, 0.5, "2a98b0")
    c.put((np.abs(margin - 0.033) > 0.022) & (margin < 0.066), 0.5, "e8b040")
    form[margin < 0.066] = 8

    gap, inset, rows = 0.0118, to_edge(form, c)[::2, ::2], []
    for level in np.arange(0.5, 40) * gap:
        for row in measure.find_contours(inset, level):
            row = row[:, ::-1] * 2 / c.scale
            walked = np.r_[0, np.cumsum(np.hypot(*np.diff(row, axis=0).T))]
            places = np.arange(rng.uniform(0.1, 0.9) * gap, walked[-1], gap * 1.08)
            here, ahead = ([np.interp(places + d, walked, column) for column in row.T] for d in (0, gap / 2))
            rows.append(np.c_[here[0], here[1], np.arctan2(ahead[1] - here[1], ahead[0] - here[0])])
    tiles = np.concatenate(rows)
    tiles += rng.normal(size=tiles.shape) * (0.04 * gap, 0.04 * gap, 0.06)
    near = spatial.cKDTree(tiles[:, :2]).query(np.stack([x, y], -1), k=4)[1]
    dx, dy, a = x[..., None] - tiles[near, 0], y[..., None] - tiles[near, 1], tiles[near, 2]
    square = np.maximum(np.abs(dx * np.cos(a) + dy * np.sin(a)), np.abs(dy * np.cos(a) - dx * np.sin(a))) / gap
    first, second = np.sort(square, -1)[..., :2].transpose(2, 0, 1)
    tile = np.take_along_axis(near, square.argmin(-1)[..., None], -1)[..., 0]
    cut = np.minimum(0.75 - first, second - first) + 0.015 * c.noise(0.006, 2)  # how far inside its tile a pixel is
    tilt, color = rng.normal(size=(2, len(tiles))), vary(rng, c.at(c.rgb, *tiles.T[:2]), 0.018, 0.08)
    stone = color[tile] * (1 + 0.05 * c.noise(0.005, 3) + 0.05 * (tilt[0] + tilt[1])[tile])[..., None]
    c.rgb = mix(ramp(0.5 + 0.2 * c.noise(0.005, 3), "1c1a1a 4a443c 7a7060"), stone, step(0.035, 0.075, cut))
    slant = tilt[0][tile] * (x - tiles[tile, 0]) + tilt[1][tile] * (y - tiles[tile, 1])
    c.thick = 2 * step(0.02, 0.2, cut) + 25 * slant
    return c


PAINTINGS = {
    draw.__name__: draw
    for draw in (
        lantern_bay,
        carved_sea,
        window_of_the_sun,
        noon_pond,
        table_with_guitar,
        mist_peaks,
        harbour_in_red,
        koi_mosaic,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to draw (default: all): {', '.join(PAINTINGS)}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "data" / "paintings", help="folder")
    parser.add_argument("--size", type=int, default=768, help="longer side in pixels (default: %(default)s)")
    args = parser.parse_args()
    if unknown := set(args.names) - set(PAINTINGS):
        parser.error(f"no such painting: {', '.join(sorted(unknown))}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or PAINTINGS:
        title = name.replace("_", " ").capitalize()
        picture, path = PAINTINGS[name](args.size).picture(), args.out / f"{name}.jpg"
        for quality in range(90, 70, -2):  # down to a size that suits a repository
            picture.save(path, quality=quality, comment=f"{title}, drawn by tools/paint.py")
            if path.stat().st_size < 215_000 * (args.size / 768) ** 2:
                break


if __name__ == "__main__":
    main()
