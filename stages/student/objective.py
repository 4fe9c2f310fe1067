"""What a student can be trained for: the interface of an objective.

Every file of `objectives/` holds one objective, a class of this interface, and is named like it: writing such a file is
all it takes to add one. The classes are declared without importing torch, because the command line asks them what a run
needs long before anything is computed.
"""

import importlib
from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from cache.fingerprints import Spec
    from stages.settings import ObjectiveSettings
    from stages.student.step import TrainingStep
    from stages.student.targets import TargetRule
from stages.settings import OBJECTIVES, Task

ROUTER_ENTROPY = "router_entropy"
"""Name in the log of how even the student's mixture of layers is, from 1 (all layers count alike) to 0 (one does)."""
GRADIENT_RATIO = "gradient_ratio"
"""Name in the log of how much β L_att moves the student's weights against (1 − α) L_exp: the ratio of their gradients'
norms over the weights that both reach."""


class Objective(ABC):
    """What a student is trained for: the texts it learns from, and the loss of a batch of them."""

    name: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]]
    """What the student learns to write, and so the prompts that it can be asked by afterwards."""
    settings_used: ClassVar[tuple[str, ...]] = ()
    """Fields of `ObjectiveSettings` that make a difference; students trained with others are still the same."""
    default_beta: ClassVar[float] = 1.0
    """`objective.beta` where it is not set."""
    needs_attention: ClassVar[bool] = False
    """Whether the teacher's attention has to be in the store."""

    def __init__(self, settings: "ObjectiveSettings") -> None:
        self.settings = settings
        self.alpha = settings.alpha
        self.beta = self.default_beta if settings.beta is None else settings.beta

    @abstractmethod
    def losses(self, step: "TrainingStep") -> "dict[str, torch.Tensor]":
        """Return `loss`, which is differentiated, and what else is worth logging of a batch, such as its parts."""

    def aligner(self, student: "PreTrainedModel", teacher_layers: int, *, learning_rate: float) -> "nn.Module | None":
        """Return what brings the student's layers to the targets, and is thrown away then: the router of Eq. 5.

        It learns beside the student, at its `learning_rate`.
        """
        return None

    def target_rule(self, teacher_layers: int, student_layers: int) -> "TargetRule":
        """Say how the teacher's layers become targets; for objectives that need its attention.

        Raises `ConfigError` where the models have layers that the settings do not fit.
        """
        raise NotImplementedError(f"{self.name} learns from no attention")

    def described(self) -> "Spec":
        """Return all that makes a difference to the student, by name."""
        values = {**asdict(self.settings), "beta": self.beta}
        return {"name": self.name, **{name: values[name] for name in self.settings_used}}


def objective_class(name: str) -> type[Objective]:
    """Return the class of an objective that `objective_names` lists."""
    module = importlib.import_module(f"{__package__}.{OBJECTIVES.name}.{str(name).replace('-', '_')}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Objective) and value.__module__ == module.__name__
    ]
    assert len(found) == 1 and found[0].name == name, f"{module.__name__} has to hold one objective, called {name}"
    return found[0]


def objective_of(settings: "ObjectiveSettings") -> Objective:
    """Return the objective that a configuration asks for."""
    return objective_class(settings.name)(settings)
