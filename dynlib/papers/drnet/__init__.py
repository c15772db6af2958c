"""Dynamic resolution: Zhu et al., "Dynamic Resolution Network", NeurIPS 2021 (arXiv 2106.02898).

Not every image needs all its pixels: a small predictor looks at a thumbnail and picks the resolution at which one
shared classifier sees the image. Both learn together, through a straight-through Gumbel gate and a penalty on the
mean cost; only the batch norms have one set for each resolution.

Symbols -> names: X `images`; r_j `candidates[j]`, shares of the image's side from 1 down; R(X) = z `z` (N, m); h `gate`
(N, m); y_j logits at candidate j; C_j `costs[j]`; alpha `alpha`; eta `eta`; tau `tau`. All `candidates`, `choice`s and
lists run from the largest resolution to the smallest.

    convert     Config; the network with its predictor; cost    training   the losses of both phases
    layers      batch norms by resolution, resizing, the gate   policies   what is chosen, and what it is compared with
    predictor   what looks at the thumbnail                     deploy     the form for inference
    frozen      a given classifier: the predictor alone learns

Departures from the paper, each with its reason:

- Costs and `alpha` are shares of the classifier's cost at full resolution, not giga-operations: one setting means the
  same at 64 px and at 224. As in the paper's tables, `alpha` bounds the classifier alone.
- The candidates are shares of the side (1, 3/4, 1/2 are the paper's 224, 168, 112 px), for the same reason.
- The published text combines the predictions of all candidates, the submission ran only the chosen one, in
  sub-batches: the first is the default, the second is `routed`.
- Every batch norm has its sets, as the text says; the released code forgets those of the shortcuts.
- Images are made smaller with half-pixel centres, as torchvision does. The released evaluation resizes without them,
  MindSpore's default: at half the side that keeps every second pixel. With a ResNet-20 on CIFAR-10 it costs some 5
  points at 16 px.
- At inference the argmax is taken, as the text says; the released evaluation keeps the noise. tau is not stated: 1.
- The learning rate falls along a cosine or a line, not in steps, and the momentum is Nesterov's; phases keep the
  paper's 70 : 100 epochs. The paper's rates, 0.1 and 0.01 for the predictor, are for batches of 256 and schedules of
  many days; ours are shorter, and the predictor's is `predictor_lr` times the other.
- With `supervised` the predictor learns where the classifier is right, and with `frozen` the classifier is a trained
  network that stays as it is: both are ours, to tell a method that cannot choose from a network that gives no choice.
- The predictor's MobileNetV2 form has our channels, see `predictor.py`.
- With several devices the penalty is on the mean of each device's own batch; the paper does not say.
"""

from dynlib.papers.drnet.convert import Config, choose, convert, cost, evaluate, macs_by_choice, phases
from dynlib.papers.drnet.deploy import deploy
