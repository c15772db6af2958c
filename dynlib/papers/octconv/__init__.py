"""Octave convolution: Chen et al., "Drop an Octave", ICCV 2019 (arXiv 1904.05049).

Natural images are mostly low frequency, and so are feature maps. An octave layer keeps a share `alpha` of its channels
at half resolution, where a convolution costs a quarter, and lets the two bands talk through pooling and up-sampling.

`convert` follows the graph: every tensor has a channel split, additions demand equal splits, a concatenation lines
splits up, and the layers of the last stage stay plain.

    convert      Config; the network node by node; cost      ops       the operator, with the symbols of the paper
    plan         which channels of which node are low        layers    where octaves begin; gates
    transposed   the operator of transposed convolutions     deploy    the form for inference

Departures from the paper, each with its reason:

- The stem is plain and the last stage is plain, as in the authors' code (Sec. 4.1 says so for the last stage: 7 x 7
  maps do not halve). Here both are found from the graph, so that any network has them: the stem is the first
  convolution, the last stage is every convolution at the smallest map, and one read by nothing but a strided one there.
- A network without a projection in its first block (ResNet-18, CIFAR ResNets) adds a plain tensor to an octave. The
  plain one enters by pooling those of its channels that are low, without parameters; the paper has no such network.
- `alpha = 0` is the original network, strided convolutions and all. The authors' code pools before a convolution even
  then; that other network is `pooled_control`, and the chapter trains both.
- Time is not halved in a network of clips; only the costs in Table 8 say so. A transposed convolution has an octave
  form too (`transposed.py`), which the paper has not.
- The stage whose map is odd at a given size is an error, as in the paper; `sizes="pad"` adds zeros instead.
- A strided convolution between plain maps pools first, as in the authors' code, where its kernel is odd and centred; a
  kernel that tiles the map, 2 x 2 at stride 2, has no such form and stays as it is.
"""

from dynlib.papers.octconv.convert import Config, convert, cost, deploy
