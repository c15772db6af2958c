"""Packed data sets: `<root>/<name>/<split>.npz` holds the encoded image files one after the other, with their targets.

Keys, as the README.md beside the files has it: `data` uint8, all image files in a row, `offset` (N + 1), where each
begins; `label` (N,); `label_data` and `label_offset`, masks as PNG files in a row; `box` (M, 4), `box_label` (M,) and
`box_image` (M,); `class_name`.
"""

import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dynlib.data.samples import Samples
from dynlib.errors import InputError

SMALL_BYTES, MOST_GROWTH = 2**26, 20  # encoded images hardly shrink in an archive: what grows more is no data set
_PROMISED = (RuntimeError, NotImplementedError, MemoryError)  # encrypted; another compression; a header that lies


def read(
    path: Path, task: str, classes: tuple[str, ...] | None = None, size_px: int | tuple[int, int] | None = None
) -> Samples:
    """The samples packed in `path` with the targets of a task: classification, segmentation or detection.

    `classes` stand in where the file names none. `size_px`, one side of a square or (height, width), resizes while
    decoding; masks and boxes follow. Raises InputError for a file that is missing, damaged, incomplete or not the one
    whose sha256 its README.md states, and for images of different sizes that are not resized.
    """
    try:
        content = path.read_bytes()
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): allowed is a file") from error
    except OSError as error:  # not there, or a link that leads nowhere
        there = ", ".join(sorted(file.name for file in path.parent.glob("*.npz"))) or "no .npz file"
        raise InputError(f"no file {path}: the folder has {there}") from error
    checksum = hashlib.sha256(content).hexdigest()
    _verify(path, checksum)
    arrays = _arrays(path, content)
    files = _slices(path, arrays, "data", "offset")
    size = None if size_px is None else _height_width(size_px)
    images, stored = _decode(path, files, rgb, size)
    if "class_name" in arrays:
        classes = tuple(str(name) for name in arrays["class_name"])
    elif classes is None:
        raise InputError(f"{path} has no key class_name: its keys are {', '.join(arrays)}")
    targets: dict[str, Tensor | None] = {"labels": None}
    if task == "classification":
        targets["labels"] = _ids(path, arrays, "label", len(classes), len(images))
    elif task == "segmentation":
        targets["masks"] = _masks(path, arrays, len(classes), stored, size)
    else:
        targets |= _boxes(path, arrays, len(classes), stored, size)
    pixels = _stack(path, images)
    return Samples(path.parent.name, path.stem, pixels, classes=classes, checksum=checksum, **targets)


def _height_width(size_px: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    if min(height, width) < 1:
        raise InputError(f"size_px = {size_px}: allowed is a side, or (height, width), of 1 or more")
    return height, width


def _verify(path: Path, checksum: str) -> None:
    """Compare with the line `<sha256>  <file>` of the README.md beside the file, where there is one."""
    readme = path.with_name("README.md")
    lines = readme.read_text(encoding="utf-8", errors="replace") if readme.exists() else ""
    stated = re.search(rf"^([0-9a-f]{{64}})\s+{re.escape(path.name)}\s*$", lines, re.MULTILINE)
    if stated and stated[1] != checksum:
        raise InputError(f"{path} has sha256 {checksum}: {readme} allows {stated[1]}")


def _arrays(path: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > max(SMALL_BYTES, MOST_GROWTH * len(content)):
            raise ValueError(f"its {len(content):,} bytes unpack to {size:,}")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, AttributeError, *_PROMISED) as error:
        raise InputError(f"{path} is not a whole .npz file without pickles ({error})".replace("\n", " ")) from error


def _key(path: Path, arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    if key not in arrays:
        raise InputError(f"{path} has no key {key}: its keys are {', '.join(arrays)}")
    return arrays[key]


def _slices(path: Path, arrays: dict[str, np.ndarray], data_key: str, offset_key: str) -> list[np.ndarray]:
    """The files that lie one after the other in `data_key`, as views."""
    data, offset = _key(path, arrays, data_key), _key(path, arrays, offset_key)
    if data.dtype != np.uint8 or data.ndim != 1:
        raise InputError(f"{path}: {data_key} is {data.dtype} {data.shape}, allowed is uint8 (bytes,)")
    whole = offset.ndim == 1 and offset.dtype.kind in "iu" and len(offset) > 1
    if not whole or offset[0] != 0 or offset[-1] != len(data) or (np.diff(offset.astype(np.int64)) <= 0).any():
        raise InputError(f"{path}: {offset_key} does not climb from 0 to the {len(data)} bytes of {data_key}")
    return [data[begin:end] for begin, end in pairwise(offset)]


def _ids(path: Path, arrays: dict[str, np.ndarray], key: str, limit: int, count: int) -> Tensor:
    """`count` whole numbers in 0 .. limit - 1 as int64."""
    values = _key(path, arrays, key)
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise InputError(f"{path}: {key} is {values.dtype} {values.shape}, allowed is whole numbers ({count},)")
    if count and not 0 <= int(values.min()) <= int(values.max()) < limit:
        raise InputError(f"{path}: {key} runs from {values.min()} to {values.max()}, allowed is 0 to {limit - 1}")
    return torch.from_numpy(values.astype(np.int64))


def _masks(
    path: Path, arrays: dict[str, np.ndarray], limit: int, stored: list[torch.Size], size: tuple[int, int] | None
) -> Tensor:
    """uint8 (N, H, W)."""
    masks, sizes = _decode(path, _slices(path, arrays, "label_data", "label_offset"), _class_ids, size)
    if sizes != stored:
        raise InputError(f"{path}: the masks in label_data differ from their images in number or size")
    masks = _stack(path, masks)
    if masks.max() >= limit:
        raise InputError(f"{path}: a mask has class {masks.max()}, allowed is 0 to {limit - 1}")
    return masks[:, 0]


def _boxes(
    path: Path, arrays: dict[str, np.ndarray], limit: int, stored: list[torch.Size], size: tuple[int, int] | None
) -> dict[str, Tensor]:
    """The boxes, their labels and their images, as Samples have them."""
    boxes = torch.from_numpy(_key(path, arrays, "box").astype(np.float32))
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not (boxes[:, :2] < boxes[:, 2:]).all():
        raise InputError(f"{path}: box, of shape {tuple(boxes.shape)}, does not hold (M, 4) of x1 < x2 and y1 < y2")
    box_images = _ids(path, arrays, "box_image", len(stored), len(boxes))
    sides = torch.tensor([tuple(shape) for shape in stored])[box_images]  # (M, 2): height, width
    if (boxes[:, :2] < -1).any() or (boxes[:, 2:] > sides.flip(1) + 1).any():  # annotations are rounded
        raise InputError(f"{path}: a box reaches beyond its image; allowed is 0 to its width and height, or 1 px off")
    if size is not None:
        boxes = boxes * (torch.tensor(size) / sides).flip(1).repeat(1, 2)
    return {"boxes": boxes, "box_labels": _ids(path, arrays, "box_label", limit, len(boxes)), "box_images": box_images}


def rgb(file: BinaryIO | Path) -> Tensor:
    """uint8 (3, H, W) of an image file of any kind."""
    with Image.open(file) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _class_ids(file: BinaryIO) -> Tensor:
    """uint8 (1, H, W) of a single-channel image file: the values as they stand, palette or not."""
    with Image.open(file) as image:
        if image.mode not in ("L", "P"):
            raise ValueError(f"its mode is {image.mode}, allowed are L and P")
        return torch.from_numpy(np.array(image))[None]


def _decode(
    path: Path, files: list[np.ndarray], pixels: Callable[[BinaryIO], Tensor], size: tuple[int, int] | None
) -> tuple[list[Tensor], list[torch.Size]]:
    """Of each file: what `pixels` makes of it, resized, and (height, width) as stored."""
    how = {"mode": "bilinear", "antialias": True} if pixels is rgb else {"mode": "nearest-exact"}

    def decode(index: int) -> tuple[Tensor, torch.Size]:
        try:
            image = pixels(io.BytesIO(files[index]))
        except (OSError, SyntaxError, ValueError) as error:  # SyntaxError is Pillow's word for a broken PNG
            raise InputError(f"{path}: image {index} cannot be decoded ({error})".replace("\n", " ")) from error
        stored = image.shape[1:]
        return (image if size in (None, stored) else F.interpolate(image[None], size, **how)[0]), stored

    def decode_some(first: int) -> list[tuple[Tensor, torch.Size]]:
        return [decode(index) for index in range(first, min(first + chunk, len(files)))]

    chunk = 256  # images a task, so that handing out tasks costs little beside decoding
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = [pair for some in pool.map(decode_some, range(0, len(files), chunk)) for pair in some]
    return [image for image, _ in decoded], [stored for _, stored in decoded]


def _stack(path: Path, images: list[Tensor]) -> Tensor:
    if len({image.shape for image in images}) > 1:
        raise InputError(f"{path}: its images have different sizes; allowed is to load them at one, with size_px")
    return torch.stack(images)
