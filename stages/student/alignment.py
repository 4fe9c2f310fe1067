"""Which layers of teacher and student meet in the attention loss.

In: the settings and how many layers with attention each of the two has. Out: for the teacher a `TargetRule`, for the
student a module that makes as many (S, K) matrices of its layers. `mixture` is the paper's: all layers of both models,
weighed record by record. The others pair fixed layers, as earlier distillation methods do; L_att is then the mean of
Eq. 6 over the pairs, so that β means the same whatever their number.

The originals match attention scores head by head (TinyBERT, MobileBERT) or value relations (MiniLM). What is cached is
averaged over heads and pooled to steps × critical words, so the *pairing of layers* is theirs and the loss is Eq. 6, as
in the comparison of arXiv 2604.15701.

Shapes: B batch, L layers, P matrices of a record, T tokens, S reasoning steps, K critical words.
"""

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from data.errors import ConfigError
from stages.attention.stepwise import Recording, attention_layers
from stages.mixture import LayerRouter, mix_layers, router_factor
from stages.models.size import require_pair
from stages.settings import AlignmentName, AlignmentSettings, SinglePair
from stages.student.targets import TargetRule, chosen_layers_rule, mixture_rule

Pairs = tuple[tuple[int, int], ...]
"""(teacher layer, student layer), both from 0."""


def layer_pairs(alignment: AlignmentName | SinglePair, teacher: int, student: int) -> Pairs:
    """The pairs of layers that `alignment` names, for a teacher and a student of so many layers with attention.

    - `uniform` (TinyBERT): student layer i, from 1, learns from teacher layer i · ⌊L1 / L2⌋;
    - `one-to-one` (MobileBERT): equal layer numbers; of a deeper teacher its last L2 layers, in order;
    - `last` (MiniLM): the last from the last;
    - `single: [t, s]`: student layer s from teacher layer t, both from 1.

    Raises `ConfigError` where the models have no such layers.
    """
    if isinstance(alignment, SinglePair):
        require_pair(alignment.single, teacher, student)
        return ((alignment.single[0] - 1, alignment.single[1] - 1),)
    if alignment == "last":
        return ((teacher - 1, student - 1),)
    if student > teacher:
        raise ConfigError(
            f"objective.alignment: {alignment} gives every layer of the student one of the teacher's, but the student "
            f"has {student} layers and the teacher {teacher}; use mixture, last or single"
        )
    if alignment == "uniform":
        every = teacher // student
        return tuple((layer * every - 1, layer - 1) for layer in range(1, student + 1))
    assert alignment == "one-to-one", f"{alignment} pairs no layers"
    return tuple((teacher - student + layer, layer) for layer in range(student))


def target_rule(settings: AlignmentSettings, teacher_layers: int, student_layers: int) -> TargetRule:
    """How the teacher's layers become targets."""
    if settings.alignment == "mixture":
        return mixture_rule(settings.tau_teacher)
    pairs = layer_pairs(settings.alignment, teacher_layers, student_layers)
    return chosen_layers_rule([teacher for teacher, _ in pairs])


def student_layers(
    student: PreTrainedModel, settings: AlignmentSettings, teacher_layers: int, *, learning_rate: float
) -> nn.Module:
    """What makes of the student's layers the matrices that are compared with the targets.

    `learning_rate` is that of the optimizer, which moves a router as well.
    """
    layers = attention_layers(student)
    if settings.alignment == "mixture":
        return MixedLayers(layers, value_width(student.config.get_text_config()), settings, learning_rate)
    return ChosenLayers(layers, [layer for _, layer in layer_pairs(settings.alignment, teacher_layers, layers)])


class MixedLayers(nn.Module):
    """All layers, weighed by the router: `A^s = Σ_l p^s_l A_l` (Eq. 5)."""

    needs_values = True

    def __init__(self, layers: int, width: int, settings: AlignmentSettings, learning_rate: float) -> None:
        super().__init__()
        factor = None
        if settings.router == "mean":
            own = settings.router_learning_rate
            factor = router_factor(layers, width, router_learning_rate=own, learning_rate=learning_rate)
        self.router = LayerRouter(layers, width, settings.tau_student, factor=factor)

    def forward(self, recording: Recording, token_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mixed attention (B, 1, S, K) and the weights (B, L)."""
        weights: torch.Tensor = self.router(recording.values(), token_mask)
        return mix_layers(recording.stacked(), weights)[:, None], weights


class ChosenLayers(nn.Module):
    """Layers at fixed numbers, each compared with a target of its own."""

    needs_values = False

    def __init__(self, layers: int, chosen: list[int]) -> None:
        super().__init__()
        self.chosen = chosen
        weights = torch.bincount(torch.tensor(chosen), minlength=layers) / len(chosen)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, recording: Recording, token_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the attention of the chosen layers (B, P, S, K) and each layer's share of them (B, L)."""
        assert isinstance(self.weights, torch.Tensor)
        return recording.stacked()[:, self.chosen], self.weights.expand(len(token_mask), -1)


def value_width(config: PreTrainedConfig) -> int:
    """Width C of a layer's value states: key-value heads × head size."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int((getattr(config, "num_key_value_heads", None) or heads) * size)
