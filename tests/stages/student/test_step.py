"""One training step: labels, batches and the total loss against its parts computed apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    PreTrainedConfig,
)

from data.marking import mark
from data.records import Question, Rationale
from stages.attention.select import Example
from stages.attention.stepwise import stepwise_attention
from stages.head import IGNORED, has_plain_head
from stages.losses import attention_loss
from stages.mixture import Target, mix_layers, mixed_targets
from stages.settings import ObjectiveSettings
from stages.student.model import DistillationModel
from stages.student.objective import objective_of
from stages.student.step import TrainingStep, gradient_norms
from stages.student.texts import TrainingCollator, training_record
from tests.fakes import tiny_model_folder, tiny_tokenizer

TEXTS = [
    ("Tom has 3 apples. Ann gives him 4. How many?", "3 + 4 = 7. The answer is 7.", "7"),
    ("Is 12 more than 10? By how many?", "12 - 10 = 2. The answer is 2.", "2"),
]


def example(text: str, rationale: str, answer: str) -> Example:
    question = Question(id=text, dataset="test", text=text, answer=answer, answer_kind="number")
    return Example(
        rationale=Rationale(question=question, text=rationale, answer=answer, phase="plain"),
        marked=mark(text, rationale),
        key=text,
    )


EXAMPLES = [example(*texts) for texts in TEXTS]


@pytest.fixture
def student(tmp_path: Path):
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder(tmp_path, "llama"))


def written(tokenizer, text) -> str:
    return tokenizer.decode(text.labels[text.labels != IGNORED])


def test_each_task_is_learned_on_its_own_part_of_the_text():
    tokenizer = tiny_tokenizer(adds_begin=True)
    record = training_record(tokenizer, EXAMPLES[0], None)
    assert written(tokenizer, record.predict) == "7" + tokenizer.eos_token
    assert written(tokenizer, record.explain) == TEXTS[0][1] + tokenizer.eos_token
    asked = tokenizer.decode(record.predict.ids[record.predict.labels == IGNORED])
    assert asked == f"{tokenizer.bos_token}predict: {TEXTS[0][0]}\n"
    assert record.length == len(record.explain.ids)


def test_what_is_asked_in_training_is_what_generation_starts_from():
    tokenizer = tiny_tokenizer(adds_begin=True)
    record = training_record(tokenizer, EXAMPLES[0], None)
    prompt = tokenizer(f"explain: {TEXTS[0][0]}\n")["input_ids"]
    assert record.explain.ids[: len(prompt)].tolist() == prompt
    assert (record.explain.labels[: len(prompt)] == IGNORED).all()


def test_batches_are_padded_where_nothing_looks():
    tokenizer = tiny_tokenizer()
    shapes = [(1, len(one.marked.step_spans), len(one.marked.critical_spans)) for one in EXAMPLES]
    targets = [Target(attention=np.ones(shape, np.float32), layer_weights=np.ones(1)) for shape in shapes]
    records = [training_record(tokenizer, one, target) for one, target in zip(EXAMPLES, targets, strict=True)]
    batch = TrainingCollator(pad=tokenizer.pad_token_id)(list(enumerate(records)))
    short = len(records[1].explain.ids)
    assert batch["explain_ids"][1, short:].eq(tokenizer.pad_token_id).all()
    assert batch["explain_labels"][1, short:].eq(IGNORED).all()
    assert batch["token_mask"].sum(dim=1).tolist() == [len(one.located.ids) for one in records]
    assert batch["step_mask"].sum(dim=1).tolist() == [len(one.marked.step_spans) for one in EXAMPLES]
    assert batch["word_mask"].sum(dim=1).tolist() == [len(one.marked.critical_spans) for one in EXAMPLES]


MOLSAKI = ObjectiveSettings()
LEARNING_RATE = 1e-3


def model_of(student, settings: ObjectiveSettings, teacher_layers: int = 2) -> DistillationModel:
    return DistillationModel(
        student, objective_of(settings), learning_rate=LEARNING_RATE, teacher_layers=teacher_layers
    )


def full_batch(student, examples, settings: ObjectiveSettings = MOLSAKI) -> dict[str, torch.Tensor]:
    """A batch with targets that the student's own attention, halved, makes by the objective's rule."""
    tokenizer = tiny_tokenizer()
    blocks = stepwise_attention(student, tokenizer, [one.marked for one in examples])
    objective = objective_of(settings)
    rule = objective.target_rule(len(blocks[0]), len(blocks[0]))
    targets = rule.combine([block * 0.5 for block in blocks])
    records = [training_record(tokenizer, one, target) for one, target in zip(examples, targets, strict=True)]
    return TrainingCollator(pad=tokenizer.pad_token_id, tasks=objective.tasks)(list(enumerate(records)))


def plain_batch(examples, settings: ObjectiveSettings) -> dict[str, torch.Tensor]:
    """A batch for an objective without attention."""
    tokenizer = tiny_tokenizer()
    records = [training_record(tokenizer, one, None) for one in examples]
    objective = objective_of(settings)
    collator = TrainingCollator(pad=tokenizer.pad_token_id, tasks=objective.tasks, parts=objective.needs_parts)
    return collator(list(enumerate(records)))


def test_norms_of_gradients_by_hand_over_what_both_losses_reach():
    """3a + 4b and 5a + 12b + 2c, where c is of one loss only, and d of none."""
    a, b, c, d = (torch.ones((), requires_grad=True) for _ in range(4))
    norms = gradient_norms(3 * a + 4 * b, 5 * a + 12 * b + 2 * c, [a, b, c, d])
    assert [float(norm) for norm in norms] == pytest.approx([5, 13])
    assert all(one.grad is None for one in (a, b, c, d))
    assert [float(norm) for norm in gradient_norms(3 * a, 2 * c, [a, c])] == [0, 0]
    assert [float(norm) for norm in gradient_norms(torch.ones(()), 2 * c, [a, c])] == [0, 0]


def test_total_loss_is_the_weighted_sum_of_its_parts(student):
    batch = full_batch(student, EXAMPLES)
    model = model_of(student, ObjectiveSettings(alpha=0.3, beta=2.0))
    out = model(**batch)
    torch.testing.assert_close(out["loss"], 0.3 * out["L_pre"] + 0.7 * out["L_exp"] + 2.0 * out["L_att"])
    plain = student(input_ids=batch["explain_ids"], labels=batch["explain_labels"]).loss
    torch.testing.assert_close(out["L_exp"], plain)


SMALL = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
HEADS: dict[str, PreTrainedConfig] = {  # what families do around their head: cap, scale and project
    "llama": LlamaConfig(**SMALL, intermediate_size=32, num_key_value_heads=1, tie_word_embeddings=True),
    "gemma2": Gemma2Config(
        **SMALL, intermediate_size=32, num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.5
    ),
    "cohere": CohereConfig(**SMALL, intermediate_size=32, num_key_value_heads=1, logit_scale=7.0),
    "granite": GraniteConfig(**SMALL, intermediate_size=32, num_key_value_heads=1, logits_scaling=0.1),
    "gpt2": GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0),
    "opt": OPTConfig(**SMALL, word_embed_proj_dim=8, ffn_dim=32),
    "gpt_neox": GPTNeoXConfig(**SMALL, intermediate_size=32),
}


@pytest.mark.parametrize("most_logits", [10**9, 3 * 64, 1])
@pytest.mark.parametrize("family", HEADS)
def test_a_head_that_sees_target_tokens_alone_gives_the_loss_and_gradients_of_one_that_sees_all(
    family: str, most_logits: int, monkeypatch: pytest.MonkeyPatch
):
    """At once, in pieces of three tokens, and one by one."""
    torch.manual_seed(0)
    student = AutoModelForCausalLM.from_config(HEADS[family]).eval()
    ids = torch.randint(3, 64, (3, 9))
    labels = ids.clone()
    labels[0, :4] = labels[1, :7] = labels[2, :2] = labels[2, 6:] = IGNORED  # targets apart, and padding
    expected = student(input_ids=ids, labels=labels, use_cache=False).loss
    wanted = torch.autograd.grad(expected, list(student.parameters()), allow_unused=True)
    assert has_plain_head(student)
    monkeypatch.setattr("stages.head.MOST_LOGITS", most_logits)
    step = TrainingStep(student, None, {"explain_ids": ids, "explain_labels": labels}, plain_head=True)
    loss = step.cross_entropy("explain")
    found = torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert student(input_ids=ids).logits.shape == (3, 9, 64), "outside a step the head sees all again"


def test_a_model_that_does_something_else_to_its_logits_has_no_plain_head(student):
    class Other(LlamaForCausalLM):
        def forward(self, *arguments, **options):
            output = super().forward(*arguments, **options)
            output.logits = output.logits + 1
            return output

    other = Other(student.config)
    random = torch.random.get_rng_state()
    assert has_plain_head(student) and not has_plain_head(other)
    assert torch.equal(torch.random.get_rng_state(), random)


def test_the_output_of_a_task_holds_the_logits_of_each_records_targets_in_order(student):
    batch = plain_batch(EXAMPLES, ObjectiveSettings(name="mmi"))
    output = TrainingStep(student, None, batch).output("explain")
    logits, labels = student(input_ids=batch["explain_ids"]).logits[:, :-1], batch["explain_labels"][:, 1:]
    for row, label in enumerate(labels):
        expected = logits[row][label != IGNORED]
        torch.testing.assert_close(output.logits_BNV[row][output.is_target_BN[row]], expected)
        assert output.is_target_BN[row].tolist()[: len(expected)] == [True] * len(expected)


def test_attention_loss_of_a_step_equals_one_computed_from_eager_attention(student):
    batch = full_batch(student, EXAMPLES)
    out = model_of(student, ObjectiveSettings())(**batch)
    student.set_attn_implementation("eager")
    matrices = torch.stack(student(input_ids=batch["explain_ids"], output_attentions=True).attentions, dim=1).mean(
        dim=2
    )
    pooled = batch["steps_BST"][:, None] @ matrices @ batch["words_BTK"][:, None]
    even = mix_layers(pooled, torch.full((2, 2), 0.5))  # the router starts with even weights
    expected = attention_loss(batch["target_BPSK"][:, 0], even, batch["step_mask"], batch["word_mask"], rows="share")
    torch.testing.assert_close(out["L_att"], expected, atol=1e-6, rtol=1e-4)
    assert out["L_att"] > 0


def test_mixed_precision_leaves_the_attention_loss_close_to_that_of_float32(student):
    batch = full_batch(student, EXAMPLES)
    model = model_of(student, ObjectiveSettings())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(**batch)
    assert mixed["L_att"].dtype == torch.float32
    torch.testing.assert_close(mixed["L_att"], model(**batch)["L_att"], rtol=5e-2, atol=1e-5)
    mixed["loss"].backward()


def test_dss_is_molsaki_without_its_attention_loss(student):
    batch = full_batch(student, EXAMPLES)
    dss = model_of(student, ObjectiveSettings(name="dss"))
    plain = {name: one for name, one in batch.items() if name.startswith(("predict_", "explain_"))}
    one = dss(**plain)
    other = model_of(student, ObjectiveSettings(beta=0.0))(**batch)
    assert dss.aligner is None
    torch.testing.assert_close(one["loss"], other["loss"])


@pytest.mark.parametrize("name", ["answer-only", "dss", "mmi", "molsaki", "fine-tune-cot"])
def test_losses_and_gradients_of_packed_texts_are_those_of_padded_ones(student, name: str):
    """Texts of unlike length in a batch, and every objective."""
    settings = ObjectiveSettings(name=name)
    batch = full_batch(student, EXAMPLES) if name == "molsaki" else plain_batch(EXAMPLES, settings)
    model = model_of(student, settings)
    assert model.packs
    weights = list(model.parameters())
    packed = model(**batch)
    of_packed = torch.autograd.grad(packed["loss"], weights, allow_unused=True)
    model.packs = False
    padded = model(**batch)
    of_padded = torch.autograd.grad(padded["loss"], weights, allow_unused=True)
    assert packed.keys() == padded.keys()
    for part, loss in packed.items():
        torch.testing.assert_close(loss, padded[part], atol=1e-6, rtol=1e-5)
    for one, other in zip(of_packed, of_padded, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_all_tasks_are_answered_by_one_pass_over_no_padding(student):
    batch = full_batch(student, EXAMPLES)
    model, seen = model_of(student, ObjectiveSettings()), []
    student.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    model(**batch)
    tokens = sum(len(batch[f"{task}_tokens"]) for task in ("predict", "explain"))
    assert seen == [(1, tokens)] and tokens < batch["predict_ids"].numel() + batch["explain_ids"].numel()
    model.packs = False
    model(**batch)
    assert seen[1:] == [tuple(batch["predict_ids"].shape), tuple(batch["explain_ids"].shape)]


def test_the_attention_loss_reaches_student_and_router(student):
    model = model_of(student, ObjectiveSettings())
    batch = full_batch(student, EXAMPLES)
    for _ in range(2):
        model.zero_grad()
        model(**batch)["L_att"].backward()
    assert model.aligner is not None
    assert model.aligner.router.score.weight.grad.abs().sum() > 0
    gradient = student.model.layers[0].self_attn.q_proj.weight.grad
    assert gradient.abs().sum() > 0


def test_targets_are_the_teachers_layers_mixed_by_their_weights():
    block = np.zeros((2, 1, 2), np.float16)
    block[0, 0] = [0, 1]
    (target,) = mixed_targets([block], tau=1.0)
    weight = np.exp(1) / (np.exp(1) + 1)
    np.testing.assert_allclose(target.layer_weights, [weight, 1 - weight], rtol=1e-6)
    np.testing.assert_allclose(target.attention, [[[0, weight]]], rtol=1e-6)
