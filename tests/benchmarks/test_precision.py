"""How much faster networks train with `precision: bfloat16` on a processor that has it; one thread.

`pytest tests/benchmarks/test_precision.py -s` prints milliseconds of processor time an image of the
fastest epoch of `fit`, on noise; what a precision costs in scores shows on real images alone.
"""

import time

import pytest

from hemaml.core.objective import Context, load_objective
from hemaml.core.task import Fold

pytestmark = pytest.mark.usefixtures("one_thread")
EPOCHS = 3
CELLS = {"reader": "smears", "count": 10, "size": 120}
TYPES = {"reader": "smear_types", "patients": 17, "per_patient": 2, "size": 96}
FINE_TUNED = {"weights": "none", "size": 96, "unfrozen_blocks": 5, "batch_size": 32,
              "class_weights": False}  # fmt: skip
CASES = {
    "leukemia.resnet18": ({**TYPES, "classes": "binary"}, FINE_TUNED),
    "lymphoma.resnet50": ({**TYPES, "classes": "three"}, FINE_TUNED),
    "lymphoma.densenet121": ({**TYPES, "classes": "three"}, FINE_TUNED),
    "wbc_segmentation.unet": (CELLS, {}),
    "wbc_segmentation.mif_net": (CELLS, {}),
    "wbc_segmentation.vgu_net": (CELLS, {}),
}


def epoch_time(name, precision):
    """Milliseconds an image of the fastest epoch; the validation of a few is in it."""
    section, given = CASES[name]
    objective = load_objective(name)
    data = objective.task.read(section)
    few = sorted({label: i for i, label in enumerate(data.labels)}.values()) or [0, 1]
    rest = [i for i in range(len(data)) if i not in few]
    fold = Fold(data.subset(rest), data.subset(few))
    params = objective.params(**given, precision=precision, epochs=EPOCHS, validate_every=1)
    times, started = [], time.process_time()
    for _ in objective.fit(params, fold, Context()):
        times.append(time.process_time() - started)
        started = time.process_time()
    return 1000 * min(times) / len(fold.train)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16(name):
    usual, lower = (epoch_time(name, precision) for precision in ("float32", "bfloat16"))
    print(f"\n{name}: float32 {usual:.1f}, bfloat16 {lower:.1f} ms an image; {usual / lower:.2f}x")
