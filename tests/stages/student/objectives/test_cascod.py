"""CasCoD: the tokens of the rationale and those of its answer, each with a mean of its own."""

import pytest
import torch

from stages.head import IGNORED
from stages.settings import AttentionTerm, ObjectiveSettings, TermSettings
from stages.student.objective import objective_of
from tests.fakes import tiny_tokenizer
from tests.stages.student.objectives.reference import slow_cross_entropy
from tests.stages.student.test_step import EXAMPLES, model_of, plain_batch

CASCOD = ObjectiveSettings(name="cascod")


def test_a_text_is_parted_where_the_sentence_with_the_answer_begins():
    tokenizer = tiny_tokenizer()
    batch = plain_batch(EXAMPLES, CASCOD)
    for row, example in enumerate(EXAMPLES):
        parts = []
        for name in ("rationale", "answer"):
            labels = batch[f"{name}_labels"][row]
            parts.append(tokenizer.decode(labels[labels != IGNORED]))
        at = example.marked.rationale.index("The answer is")
        assert parts[0].rstrip() == example.marked.rationale[:at].rstrip()
        assert parts[1].lstrip() == example.marked.rationale[at:] + tokenizer.eos_token
    both = (batch["rationale_labels"] != IGNORED).int() + (batch["answer_labels"] != IGNORED).int()
    assert torch.equal(both == 1, batch["explain_labels"] != IGNORED) and both.max() == 1


@pytest.mark.parametrize("alpha", [None, 0.0, 0.6, 1.0])
@pytest.mark.parametrize("packs", [True, False])
def test_the_loss_weighs_the_two_parts(student, alpha: float | None, packs: bool):
    settings = ObjectiveSettings(name="cascod", alpha=alpha)
    batch = plain_batch(EXAMPLES, settings)
    model = model_of(student, settings)
    model.packs = packs
    out = model(**batch)
    l_rat, l_ans = (
        slow_cross_entropy(student, batch["explain_ids"], batch[f"{part}_labels"]) for part in ("rationale", "answer")
    )
    share = 0.1 if alpha is None else alpha
    torch.testing.assert_close(out["loss"], (1 - share) * l_rat + share * l_ans, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out["L_rat"], l_rat, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out["L_ans"], l_ans, rtol=1e-4, atol=1e-5)


def test_micro_batches_add_up_to_the_batch(student):
    """Shares that hold unlike numbers of tokens of either part count by their tokens."""
    from stages.student.global_batches import counts

    whole = plain_batch(EXAMPLES, CASCOD)
    model = model_of(student, CASCOD)
    expected = model(**{name: value for name, value in whole.items() if name != "record"})["loss"]
    parts = [plain_batch([example], CASCOD) for example in EXAMPLES]
    counted = [counts(part) for part in parts]
    loss = torch.zeros(())
    for part, one in zip(parts, counted, strict=True):
        shares = {name: torch.tensor(one[name] / sum(each[name] for each in counted)) for name in one}
        loss = loss + model(**{name: value for name, value in part.items() if name != "record"}, **shares)["loss"]
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_what_it_depends_on_and_what_it_refuses():
    assert objective_of(CASCOD).described() == {"name": "cascod", "alpha": 0.1}
    with pytest.raises(ValueError, match="cascod is one task of two parts"):
        objective_of(ObjectiveSettings(name="cascod", terms=TermSettings(attention=AttentionTerm())))
