"""The teacher's pass against one text at a time, all logits, and a softmax in float64; and what is stored of a head."""

import math

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from cache.soft_labels.block import SoftLabelBlock
from cache.soft_labels.layout import rows_spec
from cache.soft_labels.writer import arrays_of
from data.errors import ModelError
from data.marking import mark
from data.prompts import explain_prompt
from data.records import Marked, Question, Rationale
from stages.attention.batches import TokenBudget
from stages.attention.select import Example
from stages.attention.tokens import locate
from stages.head import IGNORED, next_tokens
from stages.models.tokenizer import begin_token
from stages.soft_labels import head as head_module
from stages.soft_labels import rows as rows_module
from stages.soft_labels.divergences import Divergence, FullRows, LikeliestRows, soft_loss
from stages.soft_labels.head import TeacherHead, head_of
from stages.soft_labels.rows import uniforms
from stages.soft_labels.teacher import Context, Keeping, TeacherPass, TeacherText, teacher_texts
from stages.student.texts import training_record
from tests.fakes import tiny_tokenizer

WIDE = {
    "vocab_size": 259,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.5,
}
SMALL = {**WIDE, "intermediate_size": 32, "num_key_value_heads": 1}
MODELS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SMALL),
    "gpt2": GPT2Config(vocab_size=259, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5, n_positions=256),
    "gemma2": Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0),
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "cohere": CohereConfig(**SMALL, logit_scale=3.0),
}
RECORDS: dict[str, Marked] = {
    letter * 64: mark(question, rationale)
    for letter, question, rationale in (
        ("a", "Tom has 3 figs. Ann gives 4.", "3 + 4 = 7. The answer is 7."),
        ("b", "Zoë?", "é 🦉. The answer is 1."),
        ("c", "Is 12 more than 10? By how many?", "The answer is 2."),
    )
}
LAYOUTS = {
    "top": Keeping(layout="top", k=5),
    "sampled": Keeping(layout="sampled", draws=6, seed=3),
    "hidden": Keeping(layout="hidden", hidden="float32"),
}


def model_of(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(MODELS[family]).float().eval()


def texts_of(context: Context = "student", *, adds_begin: bool = False) -> list[TeacherText]:
    tokenizer = tiny_tokenizer(adds_begin=adds_begin)
    begin = begin_token(tokenizer) if context == "plain" else None
    return teacher_texts(tokenizer, RECORDS, context=context, begin=begin)


def blocks_of(model: PreTrainedModel, keeping: Keeping, texts: list[TeacherText], tokens: int) -> list[SoftLabelBlock]:
    return TeacherPass(model, keeping).blocks(texts, TokenBudget(tokens))


@torch.no_grad()
def alone(model: PreTrainedModel, text: TeacherText) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits in float64 at the rows of a text that is by itself, and the log-probability of what stands there."""
    logits = model(input_ids=torch.from_numpy(text.ids)[None]).logits[0].double()
    rows = logits[torch.from_numpy(text.places)]
    return rows, torch.log_softmax(rows, dim=1).gather(1, torch.from_numpy(text.wanted)[:, None])[:, 0]


# Which texts, which rows


@pytest.mark.parametrize("adds_begin", [False, True])
def test_rows_match_the_labels_that_a_student_learns_one_to_one(adds_begin: bool):
    tokenizer = tiny_tokenizer(adds_begin=adds_begin)
    for text, marked in zip(texts_of(adds_begin=adds_begin), RECORDS.values(), strict=True):
        question = Question(id="1", dataset="test", text=marked.question, answer="7", answer_kind="number")
        rationale = Rationale(question=question, text=marked.rationale, answer="7", phase="plain")
        learned = training_record(tokenizer, Example(rationale=rationale, marked=marked, key=text.key), None).explain
        following = next_tokens(torch.from_numpy(learned.labels)[None])[0].numpy()
        np.testing.assert_array_equal(text.ids, learned.ids[:-1])
        np.testing.assert_array_equal(text.places, np.flatnonzero(following != IGNORED))
        np.testing.assert_array_equal(text.wanted, following[following != IGNORED])
        np.testing.assert_array_equal(text.following(len(learned.ids)), following)


def test_rows_of_a_text_by_hand():
    tokenizer = tiny_tokenizer()
    marked = mark("a", "é7.")
    (text,) = teacher_texts(tokenizer, {"k": marked}, context="student")
    assert tokenizer.decode(text.ids) == explain_prompt("a") + "é7."
    first = len("explain: a\n")
    assert text.places.tolist() == [first - 1, first, first + 1, first + 2, first + 3]
    assert text.wanted.tolist() == [*text.ids[first:], tokenizer.eos_token_id]
    assert text.ends.tolist() == [1, 1, 2, 3, 3] and text.ends.dtype == np.int32


@pytest.mark.parametrize("adds_begin", [False, True])
def test_plain_texts_are_those_that_attention_is_recorded_over(adds_begin: bool):
    tokenizer = tiny_tokenizer(adds_begin=adds_begin)
    for text, marked in zip(texts_of("plain", adds_begin=adds_begin), RECORDS.values(), strict=True):
        np.testing.assert_array_equal(text.ids, locate(tokenizer, marked, begin=begin_token(tokenizer)).ids)
        assert text.ids[0] == tokenizer.bos_token_id
        written = tokenizer.decode(text.wanted[:-1])
        assert written == marked.rationale and text.wanted[-1] == tokenizer.eos_token_id


def test_both_contexts_have_the_same_rows():
    for one, other in zip(texts_of("plain"), texts_of("student"), strict=True):
        np.testing.assert_array_equal(one.ends, other.ends)
        np.testing.assert_array_equal(one.wanted, other.wanted)


def test_a_first_token_has_no_row_for_nothing_is_read_in_front_of_it():
    tokenizer = tiny_tokenizer()
    bare = Marked(question="", rationale="ab", text="ab", step_spans=((0, 2),), critical_spans=())
    (text,) = teacher_texts(tokenizer, {"k": bare}, context="plain")
    assert text.places.tolist() == [0, 1] and text.ends.tolist() == [2, 2]
    (text,) = teacher_texts(tokenizer, {"k": bare}, context="plain", begin=0)
    assert text.places.tolist() == [0, 1, 2] and text.ends.tolist() == [1, 2, 2]


def test_a_tokenizer_without_end_token_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end token"):
        teacher_texts(tokenizer, RECORDS, context="student")


# Against one text at a time


@pytest.mark.parametrize("tokens", [10_000, 120, 1], ids=["one batch", "several", "one by one"])
@pytest.mark.parametrize("family", MODELS)
def test_rows_are_those_of_a_text_alone(family: str, tokens: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows_module, "MOST_LOGITS", 7 * 259)
    monkeypatch.setattr(head_module, "MOST_WEIGHTS", 100 * 16)
    model, texts = model_of(family), texts_of()
    found = {name: blocks_of(model, keeping, texts, tokens) for name, keeping in LAYOUTS.items()}
    head = head_of(model)
    for number, text in enumerate(texts):
        logits, log_p = alone(model, text)
        for blocks in found.values():
            assert blocks[number].key == text.key
            np.testing.assert_array_equal(blocks[number].ends, text.ends)
            np.testing.assert_allclose(blocks[number].log_probability, log_p, atol=1e-5, rtol=1e-5)
        top, drawn, hidden = (found[name][number] for name in ("top", "sampled", "hidden"))
        relative = logits - logits.amax(dim=1, keepdim=True)
        best = relative.topk(5, dim=1)
        np.testing.assert_allclose(top.logits, best.values, atol=1e-4, rtol=1e-3)
        chosen = relative.gather(1, torch.from_numpy(top.tokens.astype(int))).sort(dim=1, descending=True).values
        np.testing.assert_allclose(chosen, best.values, atol=1e-5)
        for column, temperature in enumerate((1, 2)):
            norms = torch.logsumexp(relative / temperature, dim=1)
            np.testing.assert_allclose(top.log_norms[:, column], norms, atol=1e-5)
        sums = torch.softmax(logits, dim=1).cumsum(dim=1).numpy()
        for row, numbers in enumerate(uniforms(text.key, 3, len(sums), 6)):
            tokens_drawn, counts = np.unique(np.searchsorted(sums[row], numbers, side="right"), return_counts=True)
            order = np.lexsort((tokens_drawn, -counts))
            kept = drawn.counts[row] > 0
            assert drawn.tokens[row][kept].tolist() == tokens_drawn[order].tolist()
            assert drawn.counts[row][kept].tolist() == counts[order].tolist()
        assert (drawn.counts > 0).any(axis=0).all(), "no column is empty"
        of_hidden = head.logits(torch.from_numpy(hidden.hidden))
        torch.testing.assert_close(of_hidden, logits.float(), atol=1e-5, rtol=1e-5)


def test_types_and_shapes_are_those_that_are_stored():
    model, texts = model_of("llama"), texts_of()
    expected = {
        "top": {"tokens": (np.uint32, 5), "logits": (np.float16, 5), "log_norms": (np.float32, 2)},
        "sampled": {"tokens": (np.uint32, None), "counts": (np.uint16, None)},
        "hidden": {"hidden": (np.float32, 16)},
    }
    for name, keeping in LAYOUTS.items():
        for block, text in zip(blocks_of(model, keeping, texts, 1000), texts, strict=True):
            assert (block.ends.dtype, block.log_probability.dtype) == (np.int32, np.float32)
            for field in ("tokens", "logits", "log_norms", "counts", "hidden"):
                array = getattr(block, field)
                if field not in expected[name]:
                    assert array is None
                    continue
                dtype, width = expected[name][field]
                assert array.dtype == dtype and array.shape[0] == len(text.ends) == len(block.ends)
                assert width in (None, array.shape[1]) and array.base is None


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("family", MODELS)
def test_the_cache_takes_them(family: str, name: str):
    spec = {"vocabulary_size": 259, "layout": name, "k": 5, "draws": 6, "hidden": "float32", "width": 16}
    texts = texts_of()
    arrays = arrays_of(blocks_of(model_of(family), LAYOUTS[name], texts, 1000), rows_spec(spec))
    assert len(arrays["end"]) == sum(len(text.ends) for text in texts)


def test_the_mode_of_the_model_is_as_before_and_dropout_plays_no_part():
    model, texts = model_of("gpt2"), texts_of()
    model.train()
    blocks = blocks_of(model, LAYOUTS["top"], texts, 1000)
    assert model.training
    _, log_p = alone(model.eval(), texts[0])
    np.testing.assert_allclose(blocks[0].log_probability, log_p, atol=1e-5, rtol=1e-5)


def test_a_batch_that_does_not_fit_is_taken_apart(monkeypatch: pytest.MonkeyPatch):
    model, texts = model_of("llama"), texts_of()
    whole = blocks_of(model, LAYOUTS["top"], texts, 1000)
    batch = TeacherPass._batch

    def small(self: TeacherPass, texts: list[TeacherText]):
        if len(texts) > 1:
            raise torch.OutOfMemoryError
        return batch(self, texts)

    monkeypatch.setattr(TeacherPass, "_batch", small)
    for one, other in zip(blocks_of(model, LAYOUTS["top"], texts, 1000), whole, strict=True):
        assert one.key == other.key
        np.testing.assert_array_equal(one.tokens, other.tokens)


def test_a_teacher_in_bfloat16_has_its_head_in_float32():
    model, texts = model_of("llama").bfloat16(), texts_of()
    (found, *_) = blocks_of(model, Keeping(layout="top", k=259), texts, 1)
    (hidden, *_) = blocks_of(model, Keeping(layout="hidden"), texts, 1)
    assert hidden.hidden.dtype == np.float16
    logits = hidden.hidden.astype(np.float64) @ model.lm_head.weight.detach().double().numpy().T
    expected = logits - logits.max(axis=1, keepdims=True)
    np.testing.assert_allclose(np.take_along_axis(expected, found.tokens.astype(int), 1), found.logits, atol=5e-3)
    norms = torch.logsumexp(torch.from_numpy(expected), dim=1)
    np.testing.assert_allclose(found.log_norms[:, 0], norms, atol=1e-3)


# From what is stored to a loss


def test_hidden_states_and_likeliest_tokens_give_the_same_divergence():
    model, texts = model_of("gemma2"), texts_of()
    student = torch.randn(len(texts[0].places), 259, generator=torch.Generator().manual_seed(1))
    top = blocks_of(model, Keeping(layout="top", k=259), texts, 1000)[0]
    hidden = blocks_of(model, Keeping(layout="hidden"), texts, 1000)[0]
    full = FullRows(logits_NW=head_of(model).logits(torch.from_numpy(hidden.hidden)))
    for column, temperature in enumerate((1.0, 2.0)):
        rows = LikeliestRows(
            tokens_NK=torch.from_numpy(top.tokens.astype(np.int64)),
            logits_NK=torch.from_numpy(top.logits),
            log_norm_N=torch.from_numpy(top.log_norms[:, column]),
        )
        for kind in ("forward-kl", "reverse-kl", "jensen-shannon"):
            way = Divergence(kind=kind, temperature=temperature)
            torch.testing.assert_close(soft_loss(student, rows, way), soft_loss(student, full, way), atol=2e-3, rtol=0)


# Heads


class Shifted(LlamaForCausalLM):
    """Does something to its logits that nobody knows of."""

    def forward(self, *arguments, **options):
        output = super().forward(*arguments, **options)
        output.logits = 2 * output.logits
        return output


def test_hidden_states_of_a_model_with_another_head_are_refused_and_its_logits_are_read():
    torch.manual_seed(0)
    model, texts = Shifted(MODELS["llama"]).float().eval(), texts_of()
    with pytest.raises(ModelError, match=r"model type llama: .* no plain matrix"):
        TeacherPass(model, LAYOUTS["hidden"])
    with pytest.raises(ModelError, match="no plain matrix"):
        head_of(model)
    for tokens in (1, 1000):
        for block, text in zip(blocks_of(model, LAYOUTS["top"], texts, tokens), texts, strict=True):
            np.testing.assert_allclose(block.log_probability, alone(model, text)[1], atol=1e-5, rtol=1e-5)


def test_a_head_that_is_no_plain_linear_map_is_refused():
    class Quantised(torch.nn.Linear):
        pass

    model = model_of("llama")
    other = Quantised(16, 259, bias=False)
    other.load_state_dict(model.lm_head.state_dict())
    model.lm_head = other
    with pytest.raises(ModelError, match="no plain matrix"):
        head_of(model)


def test_a_head_by_hand():
    head = TeacherHead(
        weight=torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float16),
        bias=torch.tensor([0.0, 1.0]),
        scales={"final_logit_softcapping": 2.0},
    )
    found = head.logits(torch.tensor([[3.0, 1.0]]))
    torch.testing.assert_close(found, torch.tensor([[2 * math.tanh(1.5), 2 * math.tanh(1.5)]]))
    assert head.vocabulary == 2 and not found.requires_grad


def test_a_head_with_a_bias_keeps_it():
    model = model_of("llama")
    model.lm_head = torch.nn.Linear(16, 259, bias=True)
    head = head_of(model)
    assert head.bias is not None and head.weight.data_ptr() == model.lm_head.weight.data_ptr()
    (block, *_) = blocks_of(model, LAYOUTS["hidden"], texts_of(), 1000)
    logits, _ = alone(model, texts_of()[0])
    torch.testing.assert_close(head.logits(torch.from_numpy(block.hidden)), logits.float(), atol=1e-5, rtol=1e-5)


def test_hidden_states_that_float16_cannot_hold_are_refused():
    model = model_of("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(1e6)
    with pytest.raises(ModelError, match="float16 has no numbers for"):
        blocks_of(model, Keeping(layout="hidden"), texts_of(), 1000)
    assert blocks_of(model, LAYOUTS["hidden"], texts_of(), 1000)[0].hidden.max() > 1e5


def test_a_teacher_whose_logits_are_no_numbers_is_refused():
    model = model_of("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    with pytest.raises(ModelError, match="no finite numbers"):
        blocks_of(model, LAYOUTS["top"], texts_of(), 1000)
