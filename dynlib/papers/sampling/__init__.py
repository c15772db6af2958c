"""Stochastic sampling and interpolation: Xie et al., "Spatially Adaptive Inference", ECCV 2020 (arXiv 2003.08866).

Neighbouring features are similar, so a convolution is computed at a random subset of the positions and interpolated at
the others. A score decides the *probability* of computing a position: a flat region keeps a few points, spread out,
where a threshold would keep all or none.

Symbols: M mask (`mask`), pi probability of sampling (`probability`), its logit (`logits`), tau temperature (`tau`),
M_grid grid prior (`grid`), k(d) interpolation kernel with sigma (`rbf_kernel`), F features, gamma weight of the sparse
loss (`gamma`), d share of the positions that are computed (`density`).

    convert       Config; blocks replaced; cost            baselines         a smaller image, fewer channels
    masks         which positions are computed             released          the authors' formula for MACs
    interpolate   what fills the others                    deploy            the form for inference, which really skips
    block         both joined to a residual block          rows              its blocks: positions as rows of a matrix
    training      the loss                                 layout            the order of the rows: tiles of 8 x 8
    branch        the same for residual blocks of any other form

Departures from the paper, each with its reason:

- Masks are hard in evaluation, `rand < pi`. The released evaluation keeps the soft value of what passes 1/2 at tau
  0.03; the two differ only where logit and noise nearly cancel, and a soft value saves no computation.
- The noise of evaluation follows from `seed`, not from a global generator, so that a figure can be repeated; the same
  place of every batch gets the same noise. `evaluate` reports several seeds.
- The temperature follows from the share of the schedule that is done. The released buffer advances in every forward
  pass, so that a second forward pass (checkpointed activations, gradients accumulated) distorts it.
- Basic blocks have masks too: one for each 3x3, or one for both. The paper has bottlenecks only.
- `convolution`, `average`, `zeros` and `reuse` are known by name only. Our readings: one learned kernel shared by the
  channels, applied without normalisation; the mean of the samples in the window; the whole branch 0 (the shortcut
  passes) where its last mask is 0; and for `reuse`, behind the first convolution, the features that it read.
- Other residual blocks (inverted, RegNet's, ConvNeXt's) have masks as `branch` says. What a kernel or a gate's pooling
  reads is interpolated, with one mask too; the deployed form knows ResNets' blocks alone.
- The one-mask block takes unsampled neighbours as 0 in its 3x3, the cheapest of the readings possible.
- All our rows start from one dense network, trained first on the same data for two thirds of the epochs, and their
  batch norms learn; the authors start from ImageNet's weights and freeze the norms.
- Our sampled schedules have hundreds of steps, not 175,900. So gamma is higher, to lower the density in time; it rises
  over the first third, and the scores learn at a tenth of the rate: otherwise the price alone drives every probability
  to 0 or 1 in the first epoch, where it stays. The RBF of our real-data runs starts at sigma 1, since from 3 it would
  not get far in so few steps.
- Pruning (Table 6) is not described in what could be read. Ours goes by batch-norm scale, within blocks.
- No deformable convolutions: the authors' detectors have them in baseline and sampled network alike.
"""

from dynlib.papers.sampling.convert import (
    DENSITIES,
    TASKS,
    Config,
    convert,
    cost,
    evaluate,
    expected,
    macs_backbone,
    macs_by_choice,
    macs_expected,
    phases,
)
from dynlib.papers.sampling.deploy import deploy
