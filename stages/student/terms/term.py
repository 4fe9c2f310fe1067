"""The interface of a term: what is added to the losses of the tasks. Torch is not imported."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from stages.settings import Task

if TYPE_CHECKING:
    import torch

    from cache.fingerprints import Spec
    from stages.student.step import TrainingStep


class Term(ABC):
    """One thing that a student is drawn to beside what it writes."""

    symbol: ClassVar[str]
    """Name of its loss in the log."""
    tasks: ClassVar[tuple[Task, ...]] = ("explain",)
    """Tasks that have to be learned with it, for it looks at their texts."""
    takes_part_of: ClassVar[Task | None] = None
    """The task whose loss becomes (1 − weight) of itself + weight of this one; None for what is added."""
    needs_attention: ClassVar[bool] = False
    """Whether the teacher's attention has to be in the store."""

    def __init__(self, settings: Any) -> None:
        """Take the settings of this very term, which have a `weight`."""
        self.settings = settings
        self.weight = float(settings.weight)

    @abstractmethod
    def losses(self, step: "TrainingStep") -> "dict[str, torch.Tensor]":
        """Return its loss of a batch under `symbol`, not weighed, and what else is worth logging."""

    @abstractmethod
    def described(self) -> "Spec":
        """Return all that makes a difference to the student, by name, its weight aside."""
