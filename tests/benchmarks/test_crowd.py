"""Many processes meet an empty store, again and again: none may break it.

pytest tests/benchmarks/test_crowd.py --benchmark-only -s
"""

import pytest
from tracking.test_mlflow_tracker import crowd

NUM_PROCESSES = 8
NUM_ROUNDS = 20


@pytest.mark.slow
def test_crowds_on_empty_stores(benchmark, tmp_path):
    folders = [tmp_path / str(index) for index in range(NUM_ROUNDS)]
    for folder in folders:
        folder.mkdir()
    left = iter(folders)
    whole = []

    def play(folder):
        crowd(folder, NUM_PROCESSES)
        whole.append(folder)

    benchmark.pedantic(play, setup=lambda: ((next(left),), {}), rounds=NUM_ROUNDS)
    print(f"\n{len(whole)} of {NUM_ROUNDS} stores whole after {NUM_PROCESSES} processes each")
    assert whole == folders
