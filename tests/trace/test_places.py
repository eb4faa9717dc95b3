"""In how many places of a model a module hangs."""

import torch
from torch import nn

import costmodel
from costmodel.graph_json import from_json, to_json
from costmodel.trace.places import module_places


def test_ways_multiply_along_the_tree_and_two_names_in_one_parent_are_one_place():
    layer = nn.Linear(2, 2)
    block = nn.Sequential(layer, nn.ReLU(), layer)
    model = nn.Sequential(block, nn.Sequential(block), nn.Sequential(nn.Sequential(block), layer), nn.Tanh())
    assert module_places(model) == {"0": 3, "0.0": 4, "0.1": 3}


def test_a_graph_keeps_them_in_numbers_and_in_a_file():
    layer = nn.Linear(2, 2)
    graph = costmodel.analyze(nn.Sequential(layer, nn.Sequential(layer)), torch.empty(1, 2), hw="t4").bound
    assert graph.places == {"0": 2}
    assert from_json(to_json(graph)).places == {"0": 2}
