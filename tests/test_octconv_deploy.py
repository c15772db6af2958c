"""Deployed octave networks: the module's numbers, whatever the settings."""

import onnx
import pytest
import torch
from networks import assert_deployed, images, network

from dynlib.errors import InputError
from dynlib.papers import octconv
from dynlib.papers.octconv import Config, convert


def test_no_batch_norm_of_an_octave_is_left_behind_a_sum():
    deployed = assert_deployed(octconv, convert(network("projection"), Config()))
    graph = onnx.load_from_string(deployed.parts["network"].graph).graph
    writer = {name: node.op_type for node in graph.node for name in node.output}
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    assert all(writer[node.input[0]] == "Conv" for node in norms)  # which the runtime folds


def test_a_deployed_network_refuses_or_pads_the_sizes_that_the_module_refuses_or_pads():
    plain = network("pad")
    with pytest.raises(InputError, match="size 30x30: layer2"):
        octconv.deploy(convert(plain, Config()), images(1, 30))
    padded = convert(plain, Config(sizes="pad"))
    assert torch.allclose(octconv.deploy(padded, images(1, 30))(images(2, 30)), padded(images(2, 30)), atol=1e-5)
