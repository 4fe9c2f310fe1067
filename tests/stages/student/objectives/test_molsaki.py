"""MoLSAKI: the gradients of L_att are those of a plain eager implementation, whatever is done to save memory."""

from pathlib import Path

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, PreTrainedModel

from stages.attention.stepwise import checkpointing_contexts
from stages.losses import attention_loss
from stages.settings import ObjectiveSettings, SinglePair
from stages.student.adapters import add_adapter
from tests.fakes import tiny_model_folder
from tests.stages.student.test_step import EXAMPLES, LEARNING_RATE, full_batch, model_of

SETTINGS = [
    *(ObjectiveSettings(router=router) for router in ("mean", "paper")),
    ObjectiveSettings(rows="softmax"),
    *(ObjectiveSettings(alignment=name) for name in ("uniform", "one-to-one", "last", SinglePair(single=(1, 2)))),
]


WRITTEN_OUT = "written_out"


def written_out_attention(module, query, key, value, attention_mask, scaling, **_):
    """Attention by its formula, T × T weights and all, in the precision of the model: transformers' own rounds them."""
    groups = query.shape[1] // key.shape[1]
    keys, values = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    later = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool).triu(1)
    weights = (query @ keys.transpose(2, 3) * scaling).masked_fill(later, -torch.inf).softmax(dim=-1)
    return (weights @ values).transpose(1, 2), weights


AttentionInterface.register(WRITTEN_OUT, written_out_attention)
AttentionMaskInterface.register(WRITTEN_OUT, AttentionMaskInterface()["eager"])


def gradients(student: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: one.grad.clone() for name, one in student.named_parameters() if one.grad is not None}


def eager_gradients(student: PreTrainedModel, batch, model) -> dict[str, torch.Tensor]:
    """L_att from `output_attentions=True`, all layers' T × T matrices and the formulas written out."""
    student.zero_grad()
    student.set_attn_implementation(WRITTEN_OUT)
    values: dict[int, torch.Tensor] = {}
    handles = [  # an adapted projection is a module of the adapter, whose output is what the layer sees
        layer.self_attn.v_proj.register_forward_hook(lambda _, __, out, at=at: values.__setitem__(at, out))
        for at, layer in enumerate(student.model.layers)
    ]
    matrices = student(input_ids=batch["explain_ids"], output_attentions=True).attentions
    for handle in handles:
        handle.remove()
    target, words, steps = batch["target_BPSK"], batch["words_BTK"], batch["steps_BST"]
    pooled = [torch.einsum("bst,btu,buk->bsk", steps.to(a), a.mean(dim=1), words.to(a)) for a in matrices]
    settings = model.objective.settings
    if settings.alignment == "mixture":
        router = model.aligner.router
        summed = []
        for layer in sorted(values):
            v = values[layer]
            normed = v / (v.square().mean(dim=-1, keepdim=True) + torch.finfo(v.dtype).eps).sqrt()
            summed.append((normed * batch["token_mask"][..., None]).sum(dim=1))
        if settings.router == "mean":
            tokens = batch["token_mask"].sum(dim=1)[:, None]
            rate = settings.router_learning_rate / (LEARNING_RATE * router.score.in_features)
            summed = [one / tokens * rate for one in summed]
        scores = torch.cat(summed, dim=1) @ router.score.weight.T + router.score.bias
        p = (scores / settings.tau_student).softmax(dim=-1)
        seen = [sum(p[:, layer, None, None] * one for layer, one in enumerate(pooled))]
    else:
        seen = [pooled[layer] for layer in model.aligner.chosen]
    losses = [
        attention_loss(target[:, at], one, batch["step_mask"], batch["word_mask"], rows=settings.rows)
        for at, one in enumerate(seen)
    ]
    torch.stack(losses).mean().backward()
    return gradients(student)


def our_gradients(student: PreTrainedModel, batch, model) -> dict[str, torch.Tensor]:
    student.zero_grad()
    model(**batch)["L_att"].backward()
    return gradients(student)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
def test_gradients_equal_those_of_eager_attention(
    tmp_path: Path, settings: ObjectiveSettings, dtype: torch.dtype, tolerance: float, checkpointing: bool
):
    torch.manual_seed(1)
    folder = tiny_model_folder(tmp_path, "llama", hidden=32, heads=4, kv_heads=2)
    student = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).train()
    batch = full_batch(student, EXAMPLES, settings)  # texts of different lengths: one is padded
    model = model_of(student, settings).to(dtype)
    if (
        settings.alignment == "mixture"
    ):  # away from the zeros that it begins with, under which nothing flows through the values
        torch.nn.init.normal_(model.aligner.router.score.weight, std=0.05)
    if checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": checkpointing_contexts})
        assert student.is_gradient_checkpointing
    found = our_gradients(student, batch, model)
    student.gradient_checkpointing_disable()
    expected = eager_gradients(student, batch, model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        size = gradient.norm()
        assert (found[name] - gradient).norm() <= tolerance * size + 1e-12, name
    assert found["model.layers.0.self_attn.q_proj.weight"].norm() > 0


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj"], ["v_proj"]])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
def test_gradients_of_an_adapter_equal_those_of_eager_attention(
    tmp_path: Path, targets, dtype: torch.dtype, tolerance: float, checkpointing: bool
):
    """With `v_proj` alone the first layer's attention has no gradient, and later ones' have."""
    torch.manual_seed(1)
    folder = tiny_model_folder(tmp_path, "llama", hidden=32, heads=4, kv_heads=2)
    student = AutoModelForCausalLM.from_pretrained(folder).train()
    batch = full_batch(student, EXAMPLES)
    add_adapter(student, {"peft_type": "LORA", "r": 4, "target_modules": targets}, print)
    for one in student.parameters():
        if one.requires_grad:  # away from the zeros that LoRA begins with
            torch.nn.init.normal_(one, std=0.2)
    student.to(dtype)
    model = model_of(student, ObjectiveSettings()).to(dtype)
    torch.nn.init.normal_(model.aligner.router.score.weight, std=0.05)
    if checkpointing:
        student.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": checkpointing_contexts})
    found = our_gradients(student, batch, model)
    student.gradient_checkpointing_disable()
    expected = eager_gradients(student, batch, model)
    assert found.keys() == expected.keys()
    assert all("lora_" in name for name in found)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm() + 1e-12, name
    assert max(gradient.norm() for gradient in found.values()) > 0


def test_with_checkpointing_the_whole_step_is_the_same(tmp_path: Path):
    folder = tiny_model_folder(tmp_path, "llama", hidden=32, heads=4, kv_heads=2)
    results = []
    for checkpointing in (False, True):
        student = AutoModelForCausalLM.from_pretrained(folder).train()
        if checkpointing:
            student.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": checkpointing_contexts})
        model = model_of(student, ObjectiveSettings())
        out = model(**full_batch(student, EXAMPLES))
        out["loss"].backward()
        results.append((out, gradients(student)))
    (plain, plain_gradients), (again, again_gradients) = results
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(again_gradients[name], gradient, rtol=1e-6, atol=1e-9)
