"""The authors' own formula for the MACs of a sampled backbone, with the deformable convolutions that they used.

The four dense figures in the table of their released models are this function's.
"""

from dynlib.errors import InputError

_BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
_OFFSETS = 2 * 9  # channels of the convolution that finds where a deformable 3x3 looks
_WINDOW = 7 * 7  # positions that an interpolation reads


def nominal_size(short_side_px: int) -> tuple[int, int]:
    """Height and width that are counted for an image whose short side is given: multiples of 32, 3 to 5."""
    return short_side_px // 32 * 32, short_side_px * 5 // 3 // 32 * 32


def released_macs(arch: str, size: tuple[int, int], density: float | None = None, *, deformable: bool = True) -> float:
    """MACs of a backbone (stem to stage 4, no head) at one density d in every block; None is the dense network.

    Of a block with P channels inside: first 1x1, 3x3, last 1x1 and offsets at d; two scores dense; interpolations
    49 P d (1 - d) and 49 x 4P d (1 - d) a position. Offsets are found from the block's input, in stages 2 to 4.
    Raises InputError for a network other than those that the authors counted.
    """
    if arch not in _BLOCKS:
        raise InputError(f"arch is {arch!r}; the released formula knows {', '.join(_BLOCKS)}")
    height, width = size[0] // 2, size[1] // 2
    total = height * width * 3 * 64 * 49  # the stem
    d = 1.0 if density is None else density
    channels, before = 64, height * width // 4
    for stage, blocks in enumerate(_BLOCKS[arch]):
        inner = 64 * 2**stage
        after = before if stage == 0 else before // 4
        for _ in range(blocks):
            total += d * (before * channels * inner + after * 13 * inner * inner)
            if channels != 4 * inner:
                total += after * channels * 4 * inner  # the shortcut, dense
            if deformable and stage > 0:
                total += d * after * 9 * channels * _OFFSETS
            if density is not None:
                total += 9 * channels * (before + after)
                total += _WINDOW * inner * (before + 4 * after) * d * (1 - d)
            channels, before = 4 * inner, after
    return total


def counted(row: str) -> dict[str, float]:
    """MACs of a row of the claims, such as "ResNet-101, 1000 px" or "SparseResNet-101, 1000 px, density 0.25".

    By metric: `macs`, of these `offset_macs`, and `macs_without_offsets`; with a density the first alone, as published.
    """
    arch, px, *rest = row.split(", ")
    short = int(px.removesuffix(" px"))
    size = (short, short) if short < 500 else nominal_size(short)  # smaller ones are counted as squares
    density = float(rest[0].removeprefix("density ")) if rest else None
    name = arch.lower().replace("-", "").removeprefix("sparse")
    whole, plain = (released_macs(name, size, density, deformable=deformable) for deformable in (True, False))
    found = {"macs": whole, "offset_macs": whole - plain, "macs_without_offsets": plain}
    return {"macs": whole} if rest else found


def implied_density(macs: float, short_side_px: int = 1000) -> float:
    """The one density that, in every block of ResNet-101, has these MACs; by halving, to 2^-30."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        costly = released_macs("resnet101", nominal_size(short_side_px), middle) > macs
        low, high = (low, middle) if costly else (middle, high)
    return low
