"""What travels with a job to the process that works on it."""

import pickle
from dataclasses import replace

import pytest

from hemaml.core.dataset import Chosen
from hemaml.core.experiment import plan_from
from hemaml.record import open_job


@pytest.mark.parametrize(
    ("carries", "on_disk", "num_reads"), [(True, False, 0), (True, True, 1), (False, False, 1)]
)
def test_only_a_data_set_in_memory_travels_and_only_where_asked(stub, carries, on_disk, num_reads):
    read, reads = stub.task.read, []

    def counted(section):
        reads.append(section)
        data = read(section)
        images = Chosen(data.images, tuple(range(len(data))))
        return replace(data, images=images) if on_disk else data

    object.__setattr__(stub.task, "read", counted)
    try:
        job = open_job(plan_from(stub.EXPERIMENT, stub.SPACE)).but(carries_data=carries)
        folds = job.folds
        reads.clear()
        arrived = pickle.loads(pickle.dumps(job))
        assert [f.train.ids for f in arrived.folds] == [f.train.ids for f in folds]
        assert arrived.data.digest == job.data.digest
        assert len(reads) == num_reads
    finally:
        object.__setattr__(stub.task, "read", read)
