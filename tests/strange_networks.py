"""Networks whose batch norms are not those of a fresh network, for the tests of S2DNAS."""

import torch
from torch import nn


def strange(net: nn.Module) -> nn.Module:
    """Random statistics and shifts in every batch norm, so that order matters; in evaluation mode."""
    torch.manual_seed(1)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.bias, norm.running_mean):
                nn.init.normal_(tensor, std=0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    return net.eval()
