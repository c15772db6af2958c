"""Wavelet-like auto-encoder: Chen et al., "Learning a Wavelet-like Auto-Encoder to Accelerate Deep Neural Networks",
AAAI 2018 (arXiv 1712.07493).

An auto-encoder learns to split the image into two of half the side, one that carries almost everything and one that
carries as little as possible. The network sees the first, a twin with a quarter of its channels the second; the cost of
a convolution falls with the square of the side.

Symbols: I_L `image_low`, I_H `image_high`, I' `restored`; lambda `lam`; f_L and f_H are the last maps of `tower` and
`twin`; s_L `low` and s_F `fused` are the scores of the two heads, whose sum is `logits`.

    convert    Config; the network is wrapped; cost    towers     a network taken apart
    split      encoder and decoder, their losses       network    tower, twin and heads put together
    wavelet    the fixed splits of the baselines       training   the stages of training

Departures from the paper, each with its reason:

- Any network that ends in linear layers behind a pooled or flattened map is wrapped, or in the pooled map of a 1 x 1
  convolution, which then reads both towers' maps; the paper has VGG16 and ResNet-50.
  The rules are those of the released VGG16 file: hidden linear layers of a quarter and a half of their width
  (`heads="released"`), the last pooling rounding up, half as many positions to read. Where torchvision pools 7 x 7 for
  images of any size, 4 x 4 are pooled: at 224 px that changes nothing and is the released 4 x 4 map.
- Losses are means over elements on images in 0 .. 1, where the paper's constants fit another scale. lambda = 1 by an
  unconfirmed re-implementation; gamma, the weight of the transform loss in the joint stage, is settled at the first
  step of that stage so that the loss is `gamma_share` of the classification loss there, and is kept in a buffer.
- The epsilon of the batch norms on images is 1e-5 / 255^2: what 1e-5 is to pixels from 0 to 255. The variance of I_H
  is near 2e-5 here, so that 1e-5 itself would keep the twin from seeing it at its full strength.
- Stage 1 learns by Adam on windows of 16 px of the pictures as they are, since augmented ones are blurred, for three
  epochs to one of the classifier's, which cost less than one on whole images. The paper has one for one, by SGD on its
  own scale. There is no weight decay, which torch's Adam would add to gradients that are small here.
- The joint stage is Adam's too. A penalty on I_H makes it small and the decoder's answer to it large, so that the
  transform loss becomes steep there, and gamma steeper: SGD at 1/100 of the classifier's rate ends at infinity.
- In `decomposition` the encoder learns at 1/100 of the rate: a batch norm behind it hides its scale, and at the whole
  rate that grows without end. Variants of two heads add two losses at the learning rate of those with one.
- The decoder has ReLUs between its layers and none at the end: the figure shows none and the released file no decoder.
- The classification loss is the sum of the cross-entropies of both heads; the released file does not tell the weights.
"""

from dynlib.papers.wae.convert import (
    LEARNED,
    PIXELS,
    TWO,
    VARIANTS,
    Config,
    conv_macs,
    convert,
    cost,
    deploy,
    evaluate,
    macs_by_part,
    phases,
    printed_speedup,
)
from dynlib.papers.wae.training import watch_all, watch_split
