"""`molsaki` for a test under FSDP on processors: accelerate takes up FSDP's settings on accelerators only.

It asks no more than what kind of devices the processes have; torch itself shards weights over gloo as over NCCL.
"""

import sys

from accelerate.state import DistributedType, PartialState

from pipeline.cli.main import main
from stages.student.trainer import StudentTrainer

_started = PartialState.__init__
_gathered = StudentTrainer.gathered_student


def _as_on_accelerators(self, *arguments, **options):
    _started(self, *arguments, **options)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


def _telling(self):
    first = next(iter(self.model_wrapped.parameters()))
    sys.stderr.write(f"sharded: {tuple(first.to_local().shape)} of {tuple(first.shape)}\n")
    return _gathered(self)


if __name__ == "__main__":
    PartialState.__init__ = _as_on_accelerators
    StudentTrainer.gathered_student = _telling
    main()
