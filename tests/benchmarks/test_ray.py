"""The Ray engine: its price over the native one, whether it grows, and what a second node brings.

    pytest tests/benchmarks/test_ray.py --benchmark-only -s

Each trial says when it began, so start-up (from the call of `search` to the first trial's begin) is
told apart from the search (from there to the last trial's end). Trials of a second either wait or
compute: the first shows what engines lose between two trials, the second also what their own work
takes from the trials on the same processors. Of many trials those of the random sampler show how
the engines grow; TPE looks at all trials before each new one, in either engine.
"""

import sys
import time
from dataclasses import dataclass, field

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from hemaml.core.search import Outcome, Study
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep
from hemaml.engines import search_of

SPACE = Space.model_validate(
    {name: {"type": "float", "low": 0, "high": 1} for name in ("x", "y", "z")}
)
NUM_TRIALS, TRIAL_S = 32, 1.0
MANY, PART = 1000, 100
MB = 1 << 20


@pytest.fixture(autouse=True)
def _by_value():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no worker can import it


def told(assigned, begun):
    return Outcome("finished", (assigned.point["x"],), run_id=str(begun))


def waits(assigned, report):
    begun = time.monotonic()
    time.sleep(TRIAL_S)
    return told(assigned, begun)


def computes(assigned, report):
    begun, busy = time.monotonic(), time.thread_time()
    while time.thread_time() - busy < TRIAL_S:
        sum(range(10_000))
    return told(assigned, begun)


def ends_at_once(assigned, report):
    return told(assigned, time.monotonic())


@dataclass
class Search:
    """One search, timed; call it once."""

    engine: str
    evaluate: object
    folder: object
    settings: dict
    begun: list = field(default_factory=list)
    ended: list = field(default_factory=list)
    sizes: list = field(default_factory=list)

    def __call__(self):
        study = Study("s", str(self.folder / f"{self.engine}.journal"), ("maximize",))
        sweep = Sweep(**{"sampler": "random", "pruner": "none", **self.settings})
        called = time.monotonic()
        search_of(self.engine)(self.evaluate, SPACE, sweep, study, self.watch)
        self.start_up = min(self.begun) - called
        self.seconds = self.ended[-1] - min(self.begun)
        assert len(self.ended) == self.settings["trials"]
        return self

    def watch(self, event):
        if event.kind != "ended":
            return
        assert event.outcome.ending == "finished", event.outcome
        self.begun.append(float(event.outcome.run_id))
        self.ended.append(time.monotonic())
        self.sizes.append(psutil.Process().memory_info().rss)

    def ms_a_trial(self, first, last):
        return 1000 * (self.ended[last - 1] - self.ended[first]) / (last - 1 - first)


@pytest.mark.parametrize("evaluate", [waits, computes])
def test_price_over_the_native_engine(benchmark, tmp_path, evaluate):
    settings = {"trials": NUM_TRIALS, "workers": 2}
    native = Search("native", evaluate, tmp_path, settings)()
    on_ray = benchmark.pedantic(Search("ray", evaluate, tmp_path, settings), rounds=1)
    over = on_ray.seconds / native.seconds - 1
    print(
        f"\n{NUM_TRIALS} trials of {TRIAL_S:g} s, each {evaluate.__name__}, 2 workers: native "
        f"{native.seconds:.2f} s, Ray {on_ray.seconds:.2f} s, {over:+.1%} (target +25 %); "
        f"start-up {native.start_up:.1f} s and {on_ray.start_up:.1f} s (target 10 s)"
    )
    assert over < 0.25
    assert on_ray.start_up < 10


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("engine", ["native", "ray"])
def test_many_trials(benchmark, tmp_path, engine, sampler):
    settings = {"trials": MANY, "workers": 2, "sampler": sampler}
    done = benchmark.pedantic(Search(engine, ends_at_once, tmp_path, settings), rounds=1)
    first, last = done.ms_a_trial(0, PART), done.ms_a_trial(MANY - PART, MANY)
    early, most = done.sizes[PART - 1] / MB, max(done.sizes[PART:]) / MB
    print(
        f"\n{engine}, {sampler}, {MANY} trials that do nothing, 2 workers: {done.seconds:.1f} s; "
        f"{first:.1f} ms a trial in the first {PART}, {last:.1f} ms in the last, "
        f"{last / first:.2f}x (target 1.5x); driver {early:.0f} MB after {PART} trials, at most "
        f"{most:.0f} MB later, {most / early - 1:+.1%} (target +20 %)"
    )
    assert most / early < 1.2
    if sampler == "random":
        assert last / first < 1.5


@pytest.mark.parametrize("evaluate", [waits, computes])
def test_a_second_node(benchmark, tmp_path, evaluate):
    def search(num_nodes):
        folder = tmp_path / str(num_nodes)
        folder.mkdir()
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        try:
            for _ in range(num_nodes - 1):
                cluster.add_node(num_cpus=1)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            settings = {"trials": NUM_TRIALS, "workers": num_nodes, "resources": {"cpu": 1}}
            return Search("ray", evaluate, folder, settings)()
        finally:
            ray.shutdown()
            cluster.shutdown()

    one = search(1)
    two = benchmark.pedantic(search, args=(2,), rounds=1)
    whole = [done.start_up + done.seconds for done in (one, two)]
    print(
        f"\n{NUM_TRIALS} trials of {TRIAL_S:g} s, each {evaluate.__name__}: one node of one "
        f"processor {one.seconds:.1f} s, two {two.seconds:.1f} s, "
        f"{two.seconds / one.seconds:.2f}x (target 0.6x); with the start of workers "
        f"{whole[0]:.1f} s and {whole[1]:.1f} s, {whole[1] / whole[0]:.2f}x"
    )
    assert two.seconds / one.seconds < 0.6
    assert whole[1] / whole[0] < 0.6
