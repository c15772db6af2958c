"""One training loop for everything: any objective, one or many devices, resumed after a kill, stopped at the first NaN.

`lightning_fabric` carries precision, devices and nodes; it is imported only when something trains. Everything random
in an epoch follows from (seed, epoch), so a run that was killed and resumed goes the way of one that was not.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from dynlib import checkpoints
from dynlib.data import IGNORED, Batches, Loader, as_batches
from dynlib.errors import InputError
from dynlib.ops import evaluating, sound_gradients
from dynlib.settings import check_choice, check_number

Targets = Tensor | list[dict[str, Tensor]]  # labels (N,), masks (N, H, W), or the boxes and labels of each image
# (network, images, targets, share of the schedule that is done in [0, 1)) -> loss; the share drives temperatures.
Objective = Callable[[nn.Module, Tensor, Targets, float], Tensor]
# (network, held-out batches) -> figures for the curve.
Watch = Callable[[nn.Module, Batches], dict[str, float]]
# Some parameters and their factor on the learning rate.
Group = tuple[Sequence[nn.Parameter], float]
# (images, labels (N,)) -> probabilities of the classes (N, C) to learn instead of the labels.
Soften = Callable[[Tensor, Tensor], Tensor]
OPTIMIZERS = ("sgd", "adam")
DECAYS = ("cosine", "linear")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # Fabric's words: weights stay in float32


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: a rate that warms up linearly and then falls to 0, by SGD with momentum or by Adam."""

    epochs: int
    lr: float = 0.1  # at the end of the warm-up, for the batch size used
    momentum: float = 0.9  # of SGD
    weight_decay: float = 1e-4
    nesterov: bool = True  # of SGD
    warmup_epochs: float = 0.0
    optimizer: str = "sgd"
    decay: str = "cosine"  # how the rate falls: cosine or linear

    def __post_init__(self):
        check_number(self, "epochs", 1, whole=True)
        for name in ("lr", "momentum", "weight_decay", "warmup_epochs"):
            check_number(self, name, 0)
        if self.warmup_epochs >= self.epochs:
            raise InputError(f"warmup_epochs is {self.warmup_epochs}; it ends before epoch {self.epochs}, the last one")
        check_choice(self, "optimizer", OPTIMIZERS)
        check_choice(self, "decay", DECAYS)

    def lr_at(self, done: float) -> float:
        """Learning rate when the share `done` of all steps lies behind."""
        warm = self.warmup_epochs / self.epochs
        if done < warm:
            return self.lr * done / warm
        left = 1 - (done - warm) / (1 - warm)
        return self.lr * (left if self.decay == "linear" else 0.5 * (1 - math.cos(math.pi * left)))

    def make(self, groups: Sequence[Group], fused: bool = False) -> torch.optim.Optimizer:
        """The optimizer of these groups of parameters; fused, its step is one kernel."""
        content = [{"params": parameters} for parameters, _ in groups]
        if self.optimizer == "adam":
            return torch.optim.Adam(content, self.lr, weight_decay=self.weight_decay, fused=fused)
        nesterov = self.nesterov and self.momentum > 0
        how = {"momentum": self.momentum, "weight_decay": self.weight_decay, "nesterov": nesterov, "fused": fused}
        return torch.optim.SGD(content, self.lr, **how)


@dataclass(frozen=True)
class Hardware:
    """What to train on, in Fabric's own words."""

    accelerator: str = "auto"  # cpu, cuda, mps
    devices: int = 1  # of one node
    nodes: int = 1
    precision: str = "32-true"  # one of PRECISIONS; held-out figures are taken in float32 whatever it is
    strategy: str = "auto"  # ddp

    def __post_init__(self):
        here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        allowed = ["auto", *(name for name, found in here.items() if found)]
        if self.accelerator not in allowed:
            raise InputError(f"accelerator is {self.accelerator!r}; this machine allows {', '.join(allowed)}")
        check_choice(self, "precision", PRECISIONS)

    @property
    def device(self) -> str:
        """The kind of device that a process trains on."""
        if self.accelerator != "auto":
            return self.accelerator
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def cross_entropy(network: nn.Module, images: Tensor, targets: Tensor, done: float) -> Tensor:
    """Logits against labels, mean over the batch; or against masks, mean over the pixels that are not void."""
    return F.cross_entropy(logits_of(network(images)), targets, ignore_index=IGNORED)


def soften(smoothing: float, classes: int, teacher: nn.Module | None = None) -> Soften:
    """Targets from labels: `smoothing` of the weight is spread over all `classes` (Szegedy et al., CVPR 2016, Sec. 7).

    With a `teacher`, a classifier in evaluation mode, half of the weight is what it says (Hinton et al. 2015).
    """

    def targets(images: Tensor, labels: Tensor) -> Tensor:
        smooth = F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
        if teacher is None:
            return smooth
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16):
            told = teacher(images).float().softmax(1)
        return (smooth + told) / 2

    return targets


def task_loss(network: nn.Module, images: Tensor, targets: Targets, done: float) -> Tensor:
    """The default objective: `cross_entropy`; where the targets are boxes, the sum of the detector's own losses."""
    if isinstance(targets, Tensor):
        return cross_entropy(network, images, targets, done)
    return sum(network(images, targets).values())


@dataclass(frozen=True)
class Phase:
    """One part of a method's training, in terms of a recipe for the whole.

    Runs that are equal in the `depends_on` of a phase are equal up to its end, and share the weights it ended with. So
    do all runs whose phase trains the network of the same `settings`; what they train next is converted from it.
    """

    name: str  # stands in the points of the curve
    objective: Objective = task_loss
    epochs: float = 1.0  # factor on the recipe's epochs; rounded, at least one epoch
    lr: float = 1.0  # factor on the recipe's learning rate
    weight_decay: float = 1.0  # factor on the recipe's weight decay
    optimizer: str = "sgd"
    groups: Callable[[nn.Module], Sequence[Group]] | None = None  # of the model; what is in none of them stays frozen
    watch: Watch | None = None
    depends_on: tuple[str, ...] | None = None  # settings of the method that matter up to the end; None: all
    settings: object | None = None  # Config of the network that is trained; None: the run's own
    augment: bool = True  # whether training images are moved as the data set has it; those of a folder always are
    images: str = "all"  # of the training images; or "most", nine in ten, or "rest", the tenth that "most" leaves out
    # (model, batches of the training images) -> what the phase sees of them
    prepare: Callable[[nn.Module, Batches], Batches] = lambda model, batches: batches

    def of(self, whole: Schedule) -> Schedule:
        """This phase's schedule under a recipe's; the warm-up keeps its share."""
        epochs = max(1, round(whole.epochs * self.epochs))
        warmup = whole.warmup_epochs * epochs / whole.epochs
        decay = whole.weight_decay * self.weight_decay
        changed = {"epochs": epochs, "lr": whole.lr * self.lr, "weight_decay": decay, "warmup_epochs": warmup}
        return replace(whole, **changed, optimizer=self.optimizer)


def fit(
    model: nn.Module,
    train: Batches | Loader | Iterable,
    schedule: Schedule,
    *,
    seed: int,
    objective: Objective = task_loss,
    valid: Batches | Loader | Iterable | None = None,
    watch: Watch | None = None,
    groups: Sequence[Group] | None = None,
    targets_of: Soften | None = None,
    hardware: Hardware | None = None,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> list[dict]:
    """Train `model` in place and return its curve, a dict an epoch: `epoch, lr, loss, seconds`, with `valid` `top1`.

    `train` and `valid` are `Batches`, or any iterable of (images, targets) with a length, such as a DataLoader.
    `watch` replaces `top1` by other figures of the model on `valid`. `groups` are (parameters, factor on the learning
    rate), by default all parameters at factor 1; parameters in no group are frozen meanwhile. With a `checkpoint` path
    the state is written there after every epoch, whole or not at all, and a later call with the same arguments goes on
    from it. `progress` shows a bar on standard error.

    Raises InputError where the loss stops being finite, naming step and learning rate, and where the checkpoint belongs
    to another run.
    """
    from lightning_fabric import Fabric  # seconds of import: only where something trains

    train, valid = as_batches(train), None if valid is None else as_batches(valid)
    hardware = hardware or Hardware()
    setup = asdict(hardware)
    fabric = Fabric(num_nodes=setup.pop("nodes"), **setup)
    fabric.launch()
    watch = watch or (lambda model, valid: {"top1": evaluate(model, valid)["top1"]})
    groups = [(list(parameters), factor) for parameters, factor in groups or [(model.parameters(), 1.0)]]
    on_gpu = fabric.device.type == "cuda"
    plain = schedule.make(groups, fused=on_gpu)
    is_video = any(parameter.dim() == 5 for parameter in model.parameters())
    layout = torch.channels_last_3d if is_video else torch.channels_last
    network, optimizer = fabric.setup(model.to(memory_format=layout), plain)
    known = hasattr(train, "samples")
    about = f"batches={len(train)}" + (f"x{train.batch_size} data={train.samples.checksum[:12]}" if known else "")
    state = checkpoints.State(run=f"{schedule} seed={seed} {about} {hardware.precision}")
    if checkpoint is not None and checkpoint.exists():
        checkpoints.restore(checkpoint, state, model, plain)
    world = fabric.world_size
    if on_gpu:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
        train, valid = (part.on(fabric.device) if hasattr(part, "on") else part for part in (train, valid))
    steps = len(train) - len(train) % world  # every process the same number, or the last step would wait for ever
    if not steps:
        raise InputError(f"{len(train)} batches an epoch cannot be shared by {world} processes; take smaller batches")
    bar = tqdm(total=schedule.epochs * steps, disable=not progress, unit="step")
    with torch.random.fork_rng(), _only(groups, model), sound_gradients(model), bar:
        bar.update(len(state.curve) * steps)
        for epoch in range(len(state.curve), schedule.epochs):
            began, total, seen = time.perf_counter(), torch.zeros((), device=fabric.device), 0
            generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
            torch.manual_seed(seed * 100_003 + epoch)  # dropout
            network.train()
            batches = islice(train.epoch(generator, fabric.device), fabric.global_rank, steps, world)
            for index, (images, targets) in enumerate(batches):
                done = (epoch * steps + index * world) / (schedule.epochs * steps)
                lr = schedule.lr_at(done)
                for group, (_, factor) in zip(plain.param_groups, groups, strict=True):
                    group["lr"] = lr * factor
                if targets_of is not None:
                    targets = targets_of(images, targets)
                loss = objective(network, images, targets, done)
                total += loss.detach() * len(images)
                seen += len(images)
                # A GPU is asked only now and then: asking waits for it, and a sum that was NaN once stays NaN.
                if (not on_gpu or index % 20 == 0) and not math.isfinite(total.item()):
                    raise _not_finite(total, epoch, index, lr)
                optimizer.zero_grad(set_to_none=True)
                fabric.backward(loss)
                optimizer.step()
                bar.update(world)
            total, seen = fabric.all_reduce(torch.stack([total, total.new_tensor(seen)]), reduce_op="sum")
            mean = (total / seen).item()
            if not math.isfinite(mean):
                raise _not_finite(total, epoch, index, lr)
            point = {"epoch": epoch + 1, "lr": lr, "loss": mean}
            if valid is not None:
                point |= watch(model, valid)
            state.curve.append(point | {"seconds": round(time.perf_counter() - began, 2)})
            bar.set_postfix({key: f"{value:.4g}" for key, value in point.items()})
            if checkpoint is not None and fabric.is_global_zero:
                checkpoints.save(checkpoint, state, model, plain)
            fabric.barrier()
    return state.curve


def _not_finite(total: Tensor, epoch: int, index: int, lr: float) -> InputError:
    return InputError(
        f"the loss is {total.item()} at step {index} of epoch {epoch + 1}, learning rate {lr:.3g}: "
        "try a smaller lr or a longer warm-up, and look for NaN in the data"
    )


def others(model: nn.Module, groups: Sequence[Group]) -> list[nn.Parameter]:
    """The parameters that are in none of the groups."""
    known = {id(parameter) for parameters, _ in groups for parameter in parameters}
    return [parameter for parameter in model.parameters() if id(parameter) not in known]


@contextmanager
def _only(groups: Sequence[Group], model: nn.Module) -> Iterator[None]:
    """Gradients for the parameters of the groups alone; afterwards every parameter wants what it wanted before."""
    frozen = [parameter for parameter in others(model, groups) if parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def logits_of(output: object) -> Tensor:
    """What a network returned where that is a tensor, else the `logits` in it."""
    return getattr(output, "logits", output)


@torch.no_grad()
def predict(
    model: nn.Module | Callable, batches: Batches | Loader | Iterable, read: Callable[[Any], Tensor] = logits_of
) -> tuple[Tensor, Tensor]:
    """What `read` makes of the outputs (N, ...), and targets (N, ...), of all samples in order, on the CPU.

    The model keeps its modes. A deployed network will do as well.
    """
    is_module = isinstance(model, nn.Module)
    device = next(model.parameters()).device if is_module else "cpu"
    outputs, targets = [], []
    with evaluating(model) if is_module else nullcontext():
        for images, target in as_batches(batches).epoch(None, device):
            outputs.append(read(model(images)).float().cpu())
            targets.append(target.cpu())
    return torch.cat(outputs), torch.cat(targets)


def top1(logits: Tensor, labels: Tensor) -> float:
    """Share of the samples whose largest logit (N, C) is their label (N,)."""
    return (logits.argmax(1) == labels).double().mean().item()


def evaluate(model: nn.Module | Callable, batches: Batches | Loader | Iterable) -> dict[str, float]:
    """`top1` as a fraction and mean cross-entropy `loss` over all samples."""
    logits, labels = predict(model, batches)
    return {"top1": top1(logits, labels), "loss": F.cross_entropy(logits, labels).item()}
