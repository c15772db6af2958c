"""Scenes: a procedural data set with labels, masks, boxes and clips; a chapter runs on it with nothing downloaded.

A scene is one object, at times with a smaller companion beneath it, before a plain or cluttered background. Five
classes differ by outline and are told apart on a thumbnail; five are pebbles of much the same outline whose texture has
a few pixels a period at any image size, so that shrinking the image wipes it out. The largest object names the image.
In a clip the object moves, and the motion names the clip; its first frame is the image of the same seed.

In reading order: the random numbers that make a scene, the objects, the background, one frame, the data set.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dynlib.data.samples import Samples
from dynlib.errors import InputError

OUTLINES = ("triangle", "square", "star", "cross", "ring")
TEXTURES = ("smooth", "across", "upright", "checked", "speckled")
CLASSES = (*OUTLINES, *(f"{texture} pebble" for texture in TEXTURES))
BACKGROUND = len(CLASSES)  # in masks
KINDS = ("images", "clips", "masks", "boxes")
MOTIONS = ("still", "left", "right", "up", "down", "approach", "recede", "turn")
DEFAULT_COUNT = {"train": 4096, "val": 512}
FEWER = 8  # so many times fewer images where every pixel or object is a target
FRAMES = 8

MIN_SIDE, MAX_SIDE = 0.1, 0.9  # diameter of an object, share of the image's side
MIN_PEBBLE = 0.3  # a texture needs room
PERIOD_PX = (2.8, 6.0)  # of a texture: from just above the Nyquist limit
TRAVEL = 0.3  # over a clip, share of the image's side
ZOOM = 1.6  # last diameter over first, or its inverse
NUMBERS = 96  # drawn for a scene, more than it uses
PLANE = 2**17  # pixels rendered together: such a plane stays in the cache

_STEPS = torch.tensor([(0, 0), (-TRAVEL, 0), (TRAVEL, 0), (0, -TRAVEL), (0, TRAVEL), (0, 0), (0, 0), (0, 0)])  # x, y
_ZOOMS = torch.tensor([1, 1, 1, 1, 1, ZOOM, 1 / ZOOM, 1])
_TURNS = torch.tensor([0, 0, 0, 0, 0, 0, 0, math.pi / 2])


class _Draws:
    """Takes a table of uniform numbers (n, NUMBERS) column by column; row i belongs to scene i."""

    def __init__(self, table: Tensor) -> None:
        self._columns = iter(table.unbind(1))

    def uniform(self, low: float | Tensor = 0.0, high: float | Tensor = 1.0) -> Tensor:
        return low + (high - low) * next(self._columns)

    def integer(self, limit: int) -> Tensor:
        return (next(self._columns) * limit).long()

    def colour(self, hue: Tensor, saturation: tuple[float, float], value: Tensor) -> Tensor:
        """(n, 3) in 0 .. 1: a cosine colour wheel mixed with grey."""
        wheel = 0.5 + 0.5 * torch.cos(2 * math.pi * (hue[:, None] - torch.tensor([0, 1 / 3, 2 / 3])))
        return value[:, None] * (1 - self.uniform(*saturation)[:, None] * (1 - wheel))


@dataclass(frozen=True)
class _Things:
    """One object in each of n scenes: every field (n,) or (n, k); lengths are shares of the image's side."""

    label: Tensor
    centre: Tensor  # (n, 2): x, y
    side: Tensor  # diameter of the circle around it
    angle: Tensor
    colour: Tensor  # (n, 3), mean of the fill
    accent: Tensor  # (n, 3), what the texture adds to and takes from the mean
    period_px: Tensor
    phase: Tensor  # (n, 2)
    wobble: Tensor  # (n, 4): amplitude and phase of the pebble's 2nd and 3rd harmonic

    def at(self, chosen: Tensor) -> "_Things":
        return _Things(**{name: values[chosen] for name, values in vars(self).items()})

    def moved(self, motion: Tensor, time: float) -> "_Things":
        """The objects at `time` 0 .. 1 of their clip."""
        zoom = _ZOOMS[motion] ** time
        return replace(
            self,
            centre=self.centre + time * _STEPS[motion],
            side=self.side * zoom,
            angle=self.angle + time * _TURNS[motion],
            period_px=self.period_px * zoom,
        )


def _things(draws: _Draws, label: Tensor, centre: Tensor, side: Tensor, hue: Tensor) -> _Things:
    pebble = label >= len(OUTLINES)
    lit, dark = draws.uniform(0.85, 1.0), draws.uniform(0.2, 0.6)
    light = draws.colour(hue, (0.55, 0.95), lit)
    deep = draws.colour(hue + draws.uniform(-0.12, 0.12), (0.6, 1.0), dark)
    return _Things(
        label=label,
        centre=centre,
        side=side,
        angle=torch.where(pebble, draws.uniform(-0.25, 0.25), draws.uniform(0, 2 * math.pi)),  # rad
        colour=(light + deep) / 2,
        accent=(light - deep) / 2 * draws.uniform(0.35, 1.0)[:, None],
        period_px=draws.uniform(*PERIOD_PX),
        phase=torch.stack([draws.uniform(0, 2 * math.pi) for _ in range(2)], 1),
        wobble=torch.stack([draws.uniform(0, high) for high in (0.12, 2 * math.pi, 0.08, 2 * math.pi)], 1),
    )


def _polygon(angle: Tensor, corners: int) -> Tensor:
    """Radius of a regular polygon, 1 at its corners."""
    half = math.pi / corners
    return math.cos(half) / torch.cos(angle % (2 * half) - half)


def _star(angle: Tensor, points: int = 5, waist: float = 0.42) -> Tensor:
    """Radius of a star, 1 at its tips: the straight line from a tip to the waist point at (waist, half)."""
    half = math.pi / points
    fold = (angle % (2 * half) - half).abs()  # 0 at a tip, half at the waist
    height, run = waist * math.sin(half), 1 - waist * math.cos(half)
    return height / (height * torch.cos(fold) + run * torch.sin(fold))


def _cross(angle: Tensor, arm: float = 0.3) -> Tensor:
    """Radius of two crossed bars of half-width `arm`, 1 at their corners: a ray leaves by the end or by the side."""
    fold = (angle % (math.pi / 2) - math.pi / 4).abs()  # 0 along an arm
    return torch.minimum(math.sqrt(1 - arm**2) / torch.cos(fold), arm / torch.sin(fold).clamp(min=arm / 2))


def _distance_px(things: _Things, u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    """Signed distance to the outline along the ray from the centre, in px, negative inside: (n, H, W)."""
    away, angle = torch.hypot(u, v) / radius, torch.atan2(v, u)
    distance = torch.empty_like(away)
    shapes = (lambda a: _polygon(a, 3), lambda a: _polygon(a, 4), _star, _cross)
    for label, outline in enumerate(shapes):
        chosen = things.label == label
        distance[chosen] = away[chosen] - outline(angle[chosen])
    ring = things.label == OUTLINES.index("ring")
    distance[ring] = (away[ring] - 0.75).abs() - 0.25
    pebble = things.label >= len(OUTLINES)
    a2, p2, a3, p3 = things.wobble[pebble][:, :, None, None].unbind(1)
    wobble = a2 * torch.cos(2 * angle[pebble] + p2) + a3 * torch.cos(3 * angle[pebble] + p3)
    distance[pebble] = away[pebble] - (1 - a2 - a3 + wobble)
    return distance * radius


def _texture(things: _Things, u: Tensor, v: Tensor, speckle: Tensor) -> Tensor:
    """(n, H, W) in -1 .. 1, mean about 0, fixed to the object; `speckle` is a square table of such values."""
    texture = torch.zeros_like(u)
    kind = things.label - len(OUTLINES)  # index into TEXTURES; negative where the outline is the class
    period = things.period_px[:, None, None]
    phase_u, phase_v = things.phase[:, :, None, None].unbind(1)

    def wave(chosen: Tensor, along: Tensor, phase: Tensor) -> Tensor:
        return torch.sin(2 * math.pi / period[chosen] * along[chosen] + phase[chosen])

    across, upright, checked, speckled = (kind == TEXTURES.index(name) for name in TEXTURES[1:])
    texture[across] = wave(across, v, phase_v)
    texture[upright] = wave(upright, u, phase_u)
    texture[checked] = wave(checked, u, phase_u) * wave(checked, v, phase_v)
    cell = 0.4 * period[speckled]
    row, column = ((along[speckled] / cell).floor().long() % len(speckle) for along in (v, u))
    texture[speckled] = speckle[row, column]
    return texture


def _paint(canvas: Tensor, things: _Things, speckle: Tensor) -> tuple[Tensor, Tensor]:
    """The canvases (n, 3, H, W) with an object and its soft shadow, and where the object is: bool (n, H, W)."""
    size_px = canvas.shape[-1]
    pixel = torch.arange(size_px) + 0.5
    x, y = (things.centre * size_px).unbind(1)
    radius = (things.side * size_px / 2)[:, None, None]
    right, down = pixel[None, None, :] - x[:, None, None], pixel[None, :, None] - y[:, None, None]
    cos, sin = torch.cos(things.angle)[:, None, None], torch.sin(things.angle)[:, None, None]
    u, v = cos * right + sin * down, cos * down - sin * right  # (n, H, W), the object's own frame, px

    distance = _distance_px(things, u, v, radius)
    shade = 1.12 - 0.3 * (u * u + v * v) / radius**2 - 0.15 * u / radius
    fill = things.colour[:, :, None, None] * shade[:, None]
    fill = torch.addcmul(fill, things.accent[:, :, None, None], _texture(things, u, v, speckle)[:, None])
    shadow = 1 - 0.5 * torch.exp(-distance.clamp(min=0) / (0.15 * radius))
    cover = (0.5 - distance).clamp(0, 1)  # share of a pixel that the object covers
    return torch.lerp(canvas * shadow[:, None], fill, cover[:, None]), cover > 0.5


def _backdrop(draws: _Draws, hue: Tensor, size_px: int) -> Tensor:
    """A gradient, on half of the scenes under patches of two further colours, one of them striped: (n, 3, H, W)."""
    value = torch.where(draws.uniform() < 0.5, draws.uniform(0.7, 0.95), draws.uniform(0.1, 0.35))
    top = draws.colour(hue, (0.05, 0.35), value)
    bottom = draws.colour(hue + draws.uniform(-0.15, 0.15), (0.05, 0.45), value * draws.uniform(0.6, 1.1))
    line = (torch.arange(size_px) + 0.5) / size_px
    y, x = line[None, :, None], line[None, None, :]

    def wave(length: Tensor) -> Tensor:
        """(n, H, W): a sine of this wavelength in a drawn direction; both in shares of the side."""
        angle, phase = draws.uniform(0, 2 * math.pi), draws.uniform(0, 2 * math.pi)
        k_x, k_y = (2 * math.pi / length * part for part in (torch.cos(angle), torch.sin(angle)))
        return torch.sin(k_x[:, None, None] * x + k_y[:, None, None] * y + phase[:, None, None])

    amount = torch.where(draws.uniform() < 0.5, 0, draws.uniform(0.5, 1.0))[:, None, None]
    field = wave(draws.uniform(0.15, 0.5)) + wave(draws.uniform(0.15, 0.5)) + wave(draws.uniform(0.3, 1.0))
    sharp = size_px / 20  # an edge of about one pixel
    backdrop = torch.lerp(top[:, :, None, None], bottom[:, :, None, None], (0.7 * y + 0.3 * x)[:, None])
    stripes = 1 + draws.uniform(0, 0.3)[:, None, None] * wave(draws.uniform(3, 8) / size_px)
    for level, pattern in ((-0.2 - field, stripes), (field - 0.5, torch.ones_like(field))):
        value_near = (value + draws.uniform(-0.25, 0.25)).clamp(0.05, 1)
        patch = draws.colour(hue + draws.uniform(-0.3, 0.3), (0.1, 0.6), value_near)
        cover = (level * sharp).clamp(0, 1) * amount
        backdrop = torch.lerp(backdrop, patch[:, :, None, None] * pattern[:, None], cover[:, None])
    return backdrop


def _bounds(seen: Tensor) -> Tensor:
    """x1 y1 x2 y2 in px around what is seen in each of (n, H, W): float32 (n, 4); 0 0 0 0 where nothing is."""
    ends = []
    for line in (seen.any(1), seen.any(2)):  # over x, over y
        line = line.to(torch.uint8)
        first, last = line.argmax(1), line.shape[1] - line.flip(1).argmax(1)
        ends.append(torch.stack([first, last], 1) * line.any(1, keepdim=True))
    return torch.stack(ends, 2).flatten(1).float()


def _render(table: Tensor, grain: Tensor, speckle: Tensor, frames: int) -> dict[str, Tensor]:
    """Scenes from their numbers (n, NUMBERS) and grain (n, H, W): clips, and what the first frame shows."""
    draws, (count, size_px, _) = _Draws(table), grain.shape
    label, motion = draws.integer(len(CLASSES)), draws.integer(len(MOTIONS))

    low = torch.where(label < len(OUTLINES), MIN_SIDE, MIN_PEBBLE)
    zoom, step = _ZOOMS[motion], _STEPS[motion]
    side = draws.uniform(low / zoom.clamp(max=1), MAX_SIDE / zoom.clamp(min=1))
    reach = (side * zoom.clamp(min=1) / 2)[:, None]
    first, last = reach + (-step).clamp(min=0), 1 - reach - step.clamp(min=0)  # centres that keep the way in the frame
    place = torch.stack([draws.uniform(), draws.uniform()], 1)
    centre = torch.where(first < last, first + place * (last - first), (first + last) / 2)
    hue = draws.uniform()
    main = _things(draws, label, centre, side, hue + draws.uniform(0.25, 0.75))

    place = torch.stack([draws.uniform(0.1, 0.9), draws.uniform(0.1, 0.9)], 1)
    small = draws.uniform(MIN_SIDE, (side / 2).clamp(min=MIN_SIDE))
    companion = _things(draws, draws.integer(len(OUTLINES)), place, small, draws.uniform())
    paired = (side > 3 * MIN_SIDE) & (draws.uniform() < 0.5)

    backdrop = _backdrop(draws, hue, size_px)
    pair_seen = torch.zeros(count, size_px, size_px, dtype=torch.bool)
    backdrop[paired], pair_seen[paired] = _paint(backdrop[paired], companion.at(paired), speckle)
    grain = ((grain - 0.5) * draws.uniform(0.02, 0.1)[:, None, None])[:, None]

    clips = torch.empty(count, 3, frames, size_px, size_px, dtype=torch.uint8)
    for frame in range(frames):
        canvas, seen = _paint(backdrop, main.moved(motion, frame / (FRAMES - 1)), speckle)
        clips[:, :, frame] = ((canvas + grain) * 255).round().clamp(0, 255)
        if frame == 0:
            main_seen = seen
    pair_seen &= ~main_seen
    mask = torch.where(pair_seen, companion.label[:, None, None], BACKGROUND)
    mask = torch.where(main_seen, label[:, None, None], mask).to(torch.uint8)
    box_label = torch.stack([label, companion.label], 1)
    box = torch.stack([_bounds(main_seen), _bounds(pair_seen)], 1)  # (n, 2, 4)
    return {"clips": clips, "label": label, "motion": motion, "mask": mask, "box": box, "box_label": box_label}


@contextmanager
def one_thread() -> Iterator[None]:
    """Many small operations: on a busy machine, waiting for a second thread at each costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make(split: str, n: int | None = None, size_px: int = 32, seed: int = 0, kind: str = "images") -> Samples:
    """`n` scenes of `size_px` x `size_px`, the same bytes for the same arguments.

    A larger n begins with the scenes of a smaller one; another size_px shows the same scenes, textures apart.
    kind "images": (N, 3, H, W), labelled by CLASSES, with masks (BACKGROUND behind the objects) and boxes
    of their visible part. kind "masks" and "boxes": the same images with these targets alone, and with background as
    the last class of masks. kind "clips": (N, 3, 8, H, W), labelled by MOTIONS; mirroring a clip changes its class.
    Raises InputError for an unknown split or kind, n < 1, size_px < 16 or a negative seed.
    """
    for field, value, allowed in (("split", split, tuple(DEFAULT_COUNT)), ("kind", kind, KINDS)):
        if value not in allowed:
            raise InputError(f"scenes: {field} = {value!r}: allowed are {', '.join(allowed)}")
    n = DEFAULT_COUNT[split] // (FEWER if kind in ("masks", "boxes") else 1) if n is None else n
    for field, value, least in (("n", n, 1), ("size_px", size_px, 16), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise InputError(f"scenes: {field} = {value!r}: allowed is a whole number of {least} or more")
    stream = [seed, list(DEFAULT_COUNT).index(split)]  # no two splits share one
    numbers, noise, cells = (np.random.default_rng(seeds) for seeds in np.random.SeedSequence(stream).spawn(3))
    table = torch.from_numpy(numbers.random((n, NUMBERS), dtype=np.float32))
    speckle = torch.from_numpy(cells.random((64, 64), dtype=np.float32)) * 2 - 1
    parts = []
    with one_thread():
        for rows in table.split(max(1, PLANE // size_px**2)):
            grain = torch.from_numpy(noise.random((len(rows), size_px, size_px), dtype=np.float32))
            parts.append(_render(rows, grain, speckle, FRAMES if kind == "clips" else 1))
    made = {name: torch.cat([part.pop(name) for part in parts]) for name in list(parts[0])}
    arguments = json.dumps(["scenes", split, n, size_px, seed, kind])
    checksum = hashlib.sha256(arguments.encode() + made["clips"].numpy().tobytes()).hexdigest()
    if kind == "clips":
        return Samples("scenes_clips", split, made["clips"], made["motion"], MOTIONS, checksum)
    images, masks, visible = made["clips"][:, :, 0], made["mask"], made["box"][:, :, 2] > 0  # (n, 2)
    if kind == "masks":
        return Samples("scenes_masks", split, images, None, (*CLASSES, "background"), checksum, masks)
    boxes = {"boxes": made["box"][visible], "box_labels": made["box_label"][visible]}
    boxes["box_images"] = visible.nonzero()[:, 0]
    if kind == "boxes":
        return Samples("scenes_boxes", split, images, None, CLASSES, checksum, **boxes)
    return Samples("scenes", split, images, made["label"], CLASSES, checksum, masks, **boxes)
