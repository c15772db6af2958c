"""S2DNAS: Yuan et al., "Transforming Static CNN Model for Dynamic Inference via Neural Architecture Search", ECCV 2020
(arXiv 1911.07033).

Exits on intermediate layers lack deep features. Here a network keeps all its layers and is cut along its channels:
stage 1 is a thin network of full depth with a classifier of its own, stage 2 adds channels that may read stage 1's, and
an image stops at the first stage that is sure. A search finds the cuts and what is reused.

    paper       here
    s           stages, exits E             p_0 .. p_s   cuts, in channel groups: stage j owns groups p_{j-1} to p_j
    G           the last cut                m_ij         reuse, 1 where stage j reads stage i (is_read)
    f_1 .. f_s  Heads                       omega        Judge.omega (search)

    convert   Config; the network cut into stages; cost      split     the network stage by stage
    owners    who owns a channel                             deploy    the form for inference
    layers    kernels in pieces, heads, the exit rule        search    the controller; `book/searches.py` runs it
    exits     thresholds and what they lead to               rivals    exits on layers, and MSDNet: `Config.form`

Departures from the paper, each with its reason:

- The paper's body could not be read and it has no public code. What its abstract and a detailed note leave open is our
  choice: 8 groups and 3 stages, no empty stage, sum of the exits' cross-entropies with weights 1.
- What pooling and addition tie together is cut alike, so ResNet's stem has the cuts of its first stage.
- Where the number of groups does not divide a layer's channels, cuts go to the nearest channel (`edges`).
- Behind a change of map size a layer reads with the reuse matrix of the features that it reads. A head reads all stages
  up to its own, whatever the matrix says.
- Kernels are the network's own, masked, not redrawn for their smaller fan-in: batch norm makes their scale irrelevant,
  and one stage stays the network itself.
- A parameter-free shortcut pads stage by stage; padded as a whole it would leak late channels into early stages.
- Of a grouped convolution a stage has its part of each group; channels are shuffled and parted (ShuffleNet) stage by
  stage, so that none gets all its channels from late stages.
- How thresholds are preset is not told: three rules, all on images held out of the training split.
- The reward's form and exponent are MnasNet's; it is taken on held-out images, where the note speaks of test images.
- In the records the search's candidates share weights, and four are retrained, not ten: a CPU cannot train each by
  itself. `Search.shared_weights` false does so, as the paper.
- Where a space is ranked to the end, it has two stages in four groups, 216 networks, not the 2,744 in eight
  (`Search.ranked`).
- Shared thresholds are tried from 0.2 on, not from 0.5: shared weights are rarely sure of anything.
- MSDNet is compared with a cut ResNet-20, whose cost is of its order, not with a cut DenseNet.
"""

from dynlib.papers.s2dnas.convert import (
    NESTED,
    Config,
    choose,
    convert,
    cost,
    evaluate,
    macs_by_choice,
    phases,
    recut,
    summed_loss,
)
from dynlib.papers.s2dnas.deploy import deploy
