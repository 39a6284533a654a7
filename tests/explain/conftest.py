import pytest
from explain.discs import Shifted, cell, dataset


@pytest.fixture
def shifted():
    """Data of n equal cells and a model that moves cell i by i pixels."""

    def make(num):
        data = dataset([cell()] * num)
        return Shifted(data, range(num)), data

    return make
