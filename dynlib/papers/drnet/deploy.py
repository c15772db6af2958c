"""Dynamic resolution at inference on a CPU: the predictor first, then one network for each image and no more.

Folded, every candidate has a frozen network of its own, with its batch norms in its kernels: fastest, and m times the
classifier's memory. Shared, one classifier serves all candidates as it is: once the memory, a pass over the maps for
every batch norm.
"""

import copy

import torch
from torch import Tensor, nn

from dynlib.errors import InputError
from dynlib.fusion import Freezer, check_images, freeze
from dynlib.papers.drnet.layers import Output, at_resolution, candidate_sizes, resize, route, thumbnail_size


class Deployed(nn.Module):
    """A dynamic resolution network, frozen: inference only, float32, CPU. See `drnet.deploy`."""

    def __init__(self, module: nn.Module, example: Tensor, folded: bool):
        super().__init__()
        self.candidates, self.antialias = module.config.candidates, module.config.antialias
        self.predictor_side = module.predictor_side
        check_images(example)
        one = example[:1].to(memory_format=torch.channels_last)
        self.predictor = freeze(module.predictor, self._thumbnail(one))
        if folded:
            sizes = candidate_sizes(tuple(one.shape[-2:]), self.candidates)
            views = ((at_resolution(module.classifier, j), size) for j, size in enumerate(sizes))
            self.folded = nn.ModuleList(Freezer(v, resize(one, size, self.antialias)).run() for v, size in views)
        else:
            self.folded = None
            self.shared = copy.deepcopy(module.classifier).eval().to(memory_format=torch.channels_last)

    @property
    def memory_bytes(self) -> int:
        """Bytes of all weights and statistics, the predictor's among them."""
        return sum(t.numel() * t.element_size() for t in (*self.parameters(), *self.buffers()))

    @torch.inference_mode()
    def forward(self, images: Tensor, choices: Tensor | None = None) -> Output:
        """Classify images (N, 3, H, W), each at the candidate that the predictor picks, equal picks together.

        With `choices` (N,) int64 the predictor is asked all the same, and then overruled. Raises InputError for choices
        of another shape or type or outside 0 .. m-1, and for images that are not float32 on the CPU or whose
        candidates are no whole pixels.
        """
        check_images(images)
        images = images.contiguous(memory_format=torch.channels_last)
        z = self.predictor(self._thumbnail(images))
        choice = z.argmax(1) if choices is None else self._checked(choices, len(images))
        return Output(route(images, choice, self._classify), choice, z)

    def _thumbnail(self, images: Tensor) -> Tensor:
        return resize(images, thumbnail_size(tuple(images.shape[-2:]), self.predictor_side), self.antialias)

    def _classify(self, images: Tensor, resolution: int) -> Tensor:
        size = candidate_sizes(tuple(images.shape[-2:]), self.candidates)[resolution]
        resized = resize(images, size, self.antialias)
        return self.shared(resized, resolution) if self.folded is None else self.folded[resolution](resized)

    def _checked(self, choices: Tensor, count: int) -> Tensor:
        m = len(self.candidates)
        if choices.shape != (count,) or choices.dtype != torch.int64:
            raise InputError(f"choices are {choices.dtype} {tuple(choices.shape)}; allowed: int64 ({count},)")
        if count and not 0 <= int(choices.min()) <= int(choices.max()) < m:
            raise InputError(f"choices run from {choices.min()} to {choices.max()}; allowed: 0 to {m - 1}")
        return choices
