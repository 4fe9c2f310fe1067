"""What a student can be trained for: tasks that it learns to write, and terms that are added to their losses.

Every file of `objectives/` holds one preset, a published method, as a class of this interface that is named like the
file; other packages add theirs under the entry point `molsaki.objectives`. Terms are files of `terms/`. The classes are
declared without importing torch, because the command line asks them what a run needs long before anything is computed.
"""

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, ClassVar

from data.errors import ConfigError
from stages.settings import OBJECTIVES, AlignmentSettings, SoftLabelTerm, Task, TermSettings, objective_names
from stages.student.terms import TERMS
from stages.student.terms.term import Term

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from cache.fingerprints import JSON, Spec
    from stages.settings import ObjectiveSettings
    from stages.student.step import TrainingStep
    from stages.student.targets import TargetRule

ENTRY_POINTS = "molsaki.objectives"
"""Where installed packages name objectives of their own."""
LOSSES: Mapping[Task, str] = {"predict": "L_pre", "explain": "L_exp"}
"""Names of the tasks' losses in the log."""


class Objective:
    """What a student is trained for: the texts it learns from, and the loss of a batch of them.

        L = α L_pre + (1 − α) L_exp + Σ β_i L_i

    with α where both tasks are learned. A preset says its tasks and terms; a configuration may replace either.
    """

    name: ClassVar[str]
    preset_tasks: ClassVar[tuple[Task, ...]]
    """What the student learns to write unless a configuration says otherwise."""
    default_alpha: ClassVar[float] = 0.5
    """`objective.alpha` where it is not set."""
    default_beta: ClassVar[float | None] = None
    """`objective.beta` where it is not set; None for a preset that has no use for it."""
    needs_parts: ClassVar[bool] = False
    """Whether `TrainingStep.parts` is asked for, and batches have to tell rationales from answers."""
    version: ClassVar[int] = 0
    """Raised by objectives of other packages when the same settings lead to another student than before."""

    def __init__(self, settings: "ObjectiveSettings") -> None:
        """Put the preset and what the settings change in it together; raises `ConfigError` for what does not fit."""
        self.settings = settings
        self.tasks: tuple[Task, ...] = tuple(task for task in LOSSES if task in (settings.tasks or self.preset_tasks))
        """What the student learns to write, and so the prompts that it can be asked by afterwards."""
        self.alpha = self.default_alpha if settings.alpha is None else settings.alpha
        self.beta = (self.default_beta or 0.0) if settings.beta is None else settings.beta
        own = self.preset_terms()
        chosen = {field.name: getattr(settings.terms, field.name) or getattr(own, field.name) for field in fields(own)}
        self.terms: Mapping[str, Term] = {name: TERMS[name](value) for name, value in chosen.items() if value}
        """The terms by name."""
        self._check()

    def preset_terms(self) -> TermSettings:
        """The terms of the preset, as far as other keys of the settings say how."""
        return TermSettings()

    def _check(self) -> None:
        if self.settings.options and type(self).__module__.startswith(f"{__package__}.{OBJECTIVES.name}."):
            raise ConfigError(f"objective.options: {self.name} has none; they are for objectives of other packages")
        for name, term in self.terms.items():
            if lacking := [task for task in term.tasks if task not in self.tasks]:
                raise ConfigError(
                    f"objective.terms.{name}: needs {lacking[0]} among the tasks, which are {', '.join(self.tasks)}"
                )

    def share(self, task: Task) -> float:
        """How much the loss of a task counts, with what takes part of it."""
        if len(self.tasks) == 1:
            return 1.0
        return self.alpha if task == "predict" else 1 - self.alpha

    def weight(self, name: str) -> float:
        """How much a term counts; 0 for one that is not there."""
        return self.terms[name].weight if name in self.terms else 0.0

    def key(self, term: str, setting: str) -> str:
        """What the configuration calls a setting of a term: that of the term itself, or the preset's."""
        if getattr(self.settings.terms, term) is not None:
            return f"objective.terms.{term}.{setting}"
        return "objective.beta" if setting == "weight" else f"objective.{setting}"

    @property
    def needs_attention(self) -> bool:
        """Whether the teacher's attention has to be in the store."""
        return any(term.needs_attention for term in self.terms.values())

    @property
    def soft_labels(self) -> SoftLabelTerm | None:
        """How the teacher's soft labels are learned, if they are; they have to be in the store then."""
        return self.terms["soft_labels"].settings if "soft_labels" in self.terms else None

    @property
    def attention(self) -> AlignmentSettings | None:
        """How the attention of teacher and student is compared, if it is."""
        return self.terms["attention"].settings if "attention" in self.terms else None

    def losses(self, step: "TrainingStep") -> "dict[str, torch.Tensor]":
        """Return `loss`, which is differentiated, and what else is worth logging of a batch, such as its parts."""
        step.answer(self.tasks)
        found = {name: term.losses(step) for name, term in self.terms.items()}
        tasks = {task: step.cross_entropy(task) for task in self.tasks}
        learned = dict(tasks)
        for name, term in self.terms.items():
            if (task := term.takes_part_of) is not None:
                learned[task] = (1 - term.weight) * learned[task] + term.weight * found[name][term.symbol]
        weighed = [loss if len(self.tasks) == 1 else self.share(task) * loss for task, loss in learned.items()]
        loss = sum(weighed[1:], start=weighed[0])
        for name, term in self.terms.items():
            if term.takes_part_of is None:
                loss = loss + term.weight * found[name][term.symbol]
        parts = {LOSSES[task]: value for task, value in tasks.items()}
        return {"loss": loss, **parts, **{name: value for each in found.values() for name, value in each.items()}}

    def aligner(self, student: "PreTrainedModel", teacher_layers: int, *, learning_rate: float) -> "nn.Module | None":
        """Return what brings the student's layers to the targets, and is thrown away then: the router of Eq. 5.

        It learns beside the student, at its `learning_rate`.
        """
        if self.attention is None:
            return None
        from stages.student.alignment import student_layers

        return student_layers(student, self.attention, teacher_layers, learning_rate=learning_rate)

    def target_rule(self, teacher_layers: int, student_layers: int) -> "TargetRule":
        """Say how the teacher's layers become targets: mixed by Eq. 4, or those that the student's are paired with.

        Raises `ConfigError` where the models have layers that the settings do not fit.
        """
        from stages.student.alignment import target_rule

        assert self.attention is not None, f"{self.name} learns from no attention"
        return target_rule(self.attention, teacher_layers, student_layers)

    def described(self) -> "Spec":
        """Return all that makes a difference to the student, by name."""
        named = {name: term for name, term in self.terms.items() if getattr(self.settings.terms, name)}
        own = {name: term for name, term in self.terms.items() if name not in named}
        found: dict[str, JSON] = {"name": self.name}
        if len(self.tasks) > 1:
            found["alpha"] = self.alpha
        if own:
            found["beta"] = self.beta
        for term in own.values():
            found |= term.described()
        if self.tasks != self.preset_tasks:
            found["tasks"] = [*self.tasks]
        if named:
            found["terms"] = {name: {"weight": term.weight, **term.described()} for name, term in named.items()}
        if self.settings.options:
            found["options"] = {**self.settings.options}
        if self.version:
            found["version"] = self.version
        return found


def objective_class(name: str) -> type[Objective]:
    """Return the preset of a name, or the objective that an installed package has registered under it.

    Raises `ConfigError` where there is none, or where what is registered is no objective.
    """
    if name not in objective_names():
        return _registered(name)
    module = importlib.import_module(f"{__package__}.{OBJECTIVES.name}.{name.replace('-', '_')}")
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


def _registered(name: str) -> type[Objective]:
    installed: dict[str, EntryPoint] = {found.name: found for found in entry_points(group=ENTRY_POINTS)}
    if name not in installed:
        known = [*objective_names(), *installed]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"objective.name: expected one of {', '.join(known)}, found {name!r}{hint}")
    where = f"objective.name: {name}, which the installed package {_package(installed[name])} registers"
    try:
        found = installed[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}, does not load: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Objective) and getattr(found, "name", None) == name):
        raise ConfigError(f"{where}, is no subclass of stages.student.objective.Objective called {name!r}")
    return found


def _package(found: EntryPoint) -> str:
    return found.dist.name if found.dist is not None else found.value
