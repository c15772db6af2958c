"""Dynamic resolution as ONNX graphs: the predictor, and one classifier a candidate, each with its resizing inside."""

import dataclasses
from collections.abc import Iterable

from torch import Tensor, nn

from dynlib import export
from dynlib.ops import LinearResize
from dynlib.papers.drnet.convert import DynamicResolution
from dynlib.papers.drnet.layers import Size, at_resolution, px, resize
from dynlib.runtime import Deployed, Resolutions


class _Resize(nn.Module):
    """`resize` as a layer; an antialiased one is written as products, since runtimes differ in it."""

    def __init__(self, old: Size, new: Size, antialias: bool):
        super().__init__()
        self.new = new
        self.products = LinearResize(old, new, True) if antialias and old != new else None

    def forward(self, images: Tensor) -> Tensor:
        return resize(images, self.new, False) if self.products is None else self.products(images)


class _Utility(nn.Module):
    """`DynamicResolution.utility` of a supervised predictor, behind it: the largest value is the choice."""

    def __init__(self, price: Tensor, costs: tuple[float, ...]):
        super().__init__()
        self.register_buffer("due", price * price.new_tensor(costs))

    def forward(self, z: Tensor) -> Tensor:
        return z.sigmoid() - self.due


def deploy(
    module: nn.Module,
    example: Tensor,
    *,
    engine: str = "onnxruntime",
    threads: int | None = None,
    calibrate: Iterable[Tensor] | None = None,
) -> Deployed:
    """A network from `convert` for inference on a CPU in float32, a callable `(images, choices=None)`.

    The predictor and each candidate's classifier are ONNX graphs, with the candidate's batch norms in its kernels; only
    the predictor and the chosen classifiers run, see `dynlib.runtime.Resolutions`. `example` (N, 3, H, W) has the size
    of the images that it will take, any N. Outputs equal the module's in evaluation mode within float32 rounding. With
    a single candidate nothing is chosen. With `calibrate`, a few batches of images, all graphs are in int8, see
    `dynlib.quantise`. Raises InputError for a size whose candidates are no whole pixels, and names
    what cannot be exported.
    """
    if not isinstance(module, DynamicResolution):
        return export.single("drnet", module, example, engine, threads, calibrate)
    about, batches = export.described("drnet", module, example, engine, threads, calibrate)
    size = tuple(example.shape[-2:])
    sizes, small = module.sizes(size)
    choosing = module.predictor
    if module.config.supervised:
        choosing = nn.Sequential(choosing, _Utility(module.price, module.costs(size)))
    networks = {"predictor": (small, choosing)}
    networks |= {f"classifier_{px(new)}": (new, at_resolution(module.classifier, j)) for j, new in enumerate(sizes)}
    networks = {
        name: nn.Sequential(_Resize(size, new, module.config.antialias), network)
        for name, (new, network) in networks.items()
    }
    feeds = batches and [(batch,) for batch in batches]
    how = {"engine": engine, "calibrate": feeds}
    graphs = {name: export.graph(network, example, **how) for name, network in networks.items()}
    about |= {"config": dataclasses.asdict(module.config), "sizes": [list(new) for new in sizes]}
    return Resolutions(about, graphs, engine, threads)
