"""Which layers meet in the attention loss: pairs by hand, and the loss over several pairs."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from data.errors import ConfigError
from stages.losses import attention_loss
from stages.settings import ObjectiveSettings, SinglePair
from stages.student.alignment import layer_pairs, value_width
from tests.fakes import tiny_model_folder
from tests.stages.student.test_step import EXAMPLES, full_batch, model_of, student

__all__ = ["student"]


@pytest.mark.parametrize(
    ("alignment", "teacher", "student_layers", "pairs"),
    [
        ("uniform", 6, 3, [(1, 0), (3, 1), (5, 2)]),
        ("uniform", 7, 3, [(1, 0), (3, 1), (5, 2)]),
        ("uniform", 3, 3, [(0, 0), (1, 1), (2, 2)]),
        ("one-to-one", 3, 3, [(0, 0), (1, 1), (2, 2)]),
        ("one-to-one", 5, 2, [(3, 0), (4, 1)]),
        ("last", 5, 2, [(4, 1)]),
        ("last", 2, 5, [(1, 4)]),
        (SinglePair(single=(2, 3)), 5, 3, [(1, 2)]),
    ],
)
def test_pairs_of_layers_by_hand(alignment, teacher: int, student_layers: int, pairs: list[tuple[int, int]]):
    assert list(layer_pairs(alignment, teacher, student_layers)) == pairs


@pytest.mark.parametrize("alignment", ["uniform", "one-to-one"])
def test_a_student_deeper_than_its_teacher_is_refused_where_every_layer_needs_one(alignment: str):
    with pytest.raises(ConfigError, match=f"{alignment} .* student has 3 layers and the teacher 2"):
        layer_pairs(alignment, 2, 3)


@pytest.mark.parametrize(
    ("pair", "said"), [((3, 1), "layer 3 of the teacher, which has 2"), ((2, 4), "layer 4 of the student")]
)
def test_a_layer_that_is_not_there_is_named(pair: tuple[int, int], said: str):
    with pytest.raises(ConfigError, match=said):
        layer_pairs(SinglePair(single=pair), 2, 3)


@pytest.mark.parametrize(("architecture", "width"), [("llama", 16), ("gpt2", 32)])
def test_width_of_value_states_follows_the_key_value_heads(architecture: str, width: int, tmp_path: Path):
    folder = tiny_model_folder(tmp_path, architecture, hidden=32, heads=4, kv_heads=2)
    assert value_width(AutoModelForCausalLM.from_pretrained(folder).config) == width


@pytest.mark.parametrize("alignment", ["uniform", "one-to-one", "last", SinglePair(single=(1, 2))])
def test_the_attention_loss_is_the_mean_over_the_pairs(student, alignment):
    settings = ObjectiveSettings(alignment=alignment)
    batch = full_batch(student, EXAMPLES, settings)
    out = model_of(student, settings)(**batch)
    student.set_attn_implementation("eager")
    answer = student(input_ids=batch["explain_ids"], output_attentions=True)
    matrices = [matrix.mean(dim=1) for matrix in answer.attentions]
    expected = [
        attention_loss(
            batch["target_BPSK"][:, number],
            batch["steps_BST"] @ matrices[layer] @ batch["words_BTK"],
            batch["step_mask"],
            batch["word_mask"],
            rows="share",
        )
        for number, (_, layer) in enumerate(layer_pairs(alignment, 2, 2))
    ]
    torch.testing.assert_close(out["L_att"], torch.stack(expected).mean(), atol=1e-6, rtol=1e-4)
    assert out["L_att"] > 0
    assert out["layer_weights"].sum() == pytest.approx(1)
