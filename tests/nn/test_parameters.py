import torch
from torch import nn

from hemaml.nn.parameters import count_parameters, count_unbuilt


def test_all_and_trainable_are_counted_apart():
    network = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    for parameter in network[0].parameters():
        parameter.requires_grad_(False)
    assert count_parameters(network) == (3 * 5 + 5 + 5 + 5, 10)


def test_a_shared_parameter_counts_once():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    assert count_parameters(nn.Sequential(first, second)) == (16, 16)


def test_counting_takes_no_memory_for_the_values():
    built = []

    def build():
        built.append(nn.Linear(1_000_000, 1_000_000, bias=False))  # 4 TB
        return built[0]

    assert count_unbuilt(build) == 10**12
    assert built[0].weight.device == torch.device("meta")
    assert torch.empty(1).device == torch.device("cpu")
