"""Students with an adapter of PEFT: what is refused, what learns, and what comes out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from data.errors import ConfigError, Interrupted, ModelError
from stages.settings import ObjectiveSettings, StudentSettings
from stages.student.adapters import adapter_config, add_adapter, save_adapted, untie
from tests.fakes import tiny_model, tiny_model_folder, tiny_tokenizer
from tests.stages.student.test_train import EXAMPLES, TermAfter, train, weights
from tests.stages.student.test_train import attention as attention  # a fixture
from tests.stages.student.test_train import folder as folder  # a fixture

DSS = ObjectiveSettings(name="dss")
LORA = {"peft_type": "LORA", "r": 4, "target_modules": "all-linear", "lora_dropout": 0.1}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"peft_type": "LORA", "rr": 4}, r"student\.peft\.rr: LoraConfig of peft has no such key; did you mean r\?"),
        ({"r": 4}, r"student\.peft\.peft_type: .*which is missing"),
        ({"peft_type": "LORRA"}, r"student\.peft\.peft_type: .*'LORRA'; did you mean LORA"),
        ({"peft_type": "LORA", "task_type": "SEQ_CLS"}, r"student\.peft\.task_type"),
        ({"peft_type": "LORA", "target_modules": "all", "layers_pattern": "h"}, r"student\.peft: LoraConfig"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}, r"PROMPT_TUNING cannot be merged"),
    ],
)
def test_what_peft_does_not_know_or_cannot_merge_is_named(given, complaint):
    with pytest.raises(ConfigError, match=complaint):
        adapter_config(given)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"peft_type": "LORA", "target_modules": ["nothing"]}, "LORA does not fit this student.*nothing"),
        ({"peft_type": "ADALORA", "total_step": 5, "target_modules": ["q_proj"]}, "ADALORA cannot be merged"),
        ({"peft_type": "POLY", "target_modules": ["q_proj"]}, "POLY cannot be merged"),
        ({"peft_type": "BEFT", "target_modules": ["q_proj"]}, "BEFT cannot be merged.*bias"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_before_training(given, complaint):
    with pytest.raises(ConfigError, match=complaint):
        add_adapter(tiny_model("llama"), given, print)


@pytest.mark.parametrize("method", ["LORA", "IA3", "LOHA", "OFT", "VERA", "LN_TUNING"])
def test_the_merged_student_computes_what_the_adapted_one_did(method, tmp_path):
    given = {"peft_type": method, "target_modules": ["q_proj", "v_proj"]}
    if method == "IA3":
        given["feedforward_modules"] = []
    if method == "LN_TUNING":
        given["target_modules"] = ["input_layernorm"]
    student = tiny_model("llama")
    adapted = add_adapter(student, given, print).eval()
    learn(student)
    ids = torch.arange(10, 30)[None]
    expected = student(input_ids=ids).logits
    merged = save_adapted(adapted, tmp_path, [ids[0].numpy()])
    assert not isinstance(merged, PeftModel)
    merged.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(plain(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    again = PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path / "adapter"))
    torch.testing.assert_close(again(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def tied_model() -> PreTrainedModel:
    config = AutoConfig.for_model(
        "llama", vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).float().eval()


def learn(student: torch.nn.Module) -> None:
    """Give what learns other values, as training would."""
    for one in student.parameters():
        if one.requires_grad:
            torch.nn.init.normal_(one, std=0.1)


@pytest.mark.parametrize(
    ("changes", "unties"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, True),
        ({"target_modules": ["q_proj", "embed_tokens"]}, True),
        ({"target_modules": ["lm_head", "embed_tokens"]}, True),
        ({"target_modules": r".*\.(q_proj|embed_tokens)"}, True),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, True),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, True),
        ({"target_modules": "all-linear"}, False),
        ({"target_modules": ["q_proj"], "trainable_token_indices": [5, 7]}, False),
        ({"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [5], "lm_head": [7]}}, True),
        ({"target_modules": ["q_proj"], "target_parameters": ["lm_head.weight"]}, True),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, False),
    ],
)
def test_tied_embeddings_are_untied_where_the_adapter_changes_one_of_them(changes, unties, tmp_path):
    student, notes = tied_model(), []
    ids = torch.arange(10, 30)[None]
    adapted = add_adapter(student, {"peft_type": "LORA", "r": 4, **changes}, notes.append).eval()
    assert bool(notes) == unties and all(f"{259 * 32:,}" in note for note in notes)
    learn(student)
    expected = student(input_ids=ids).logits
    save_adapted(adapted, tmp_path, [ids[0].numpy()]).save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert plain.config.tie_word_embeddings != unties
    torch.testing.assert_close(plain(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    again = PeftModel.from_pretrained(tied_model(), str(tmp_path / "adapter"))
    torch.testing.assert_close(again(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_layers_for_weights_that_stay_shared_are_refused_before_training():
    given = {"peft_type": "LORA", "target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}
    with pytest.raises(ConfigError, match=r"student\.peft\.ensure_weight_tying: .* for model\.embed_tokens cannot be"):
        add_adapter(tied_model(), given, print)


def experts(kind: str) -> PreTrainedModel:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(kind, vocab_size=64, num_experts=4, moe_intermediate_size=16, **sizes)
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("kind", "changes", "left"),
    [
        ("qwen2_moe", {"target_modules": "all-linear"}, True),
        ("qwen2_moe", {"target_modules": ["q_proj", "down_proj"]}, True),
        ("qwen2_moe", {"target_modules": ["q_proj", "v_proj"]}, False),
        ("qwen2_moe", {"target_modules": "all-linear", "target_parameters": EXPERTS}, False),
        ("qwen2_moe", {"target_modules": "all-linear", "target_parameters": EXPERTS[:1]}, True),
        ("qwen3_moe", {"target_modules": "all-linear"}, False),
        ("qwen3_moe", {"target_modules": ["q_proj", "gate_proj", "up_proj", "down_proj"]}, False),
    ],
)
def test_experts_that_an_adapter_was_to_change_and_does_not_are_told(kind, changes, left):
    student, notes = experts(kind), []
    adapted = add_adapter(student, {"peft_type": "LORA", "r": 2, "lora_dropout": 0.0, **changes}, notes.append)
    learn = any("experts.lora" in name or "experts.base_layer.lora" in name for name in adapted.state_dict())
    assert bool(notes) == left
    if left:
        named = EXPERTS if "target_parameters" not in changes else EXPERTS[1:]
        assert f"target_parameters: [{', '.join(named)}], lora_dropout: 0" in notes[0]
    assert learn == (changes["target_modules"] != ["q_proj", "v_proj"] and (not left or "target_parameters" in changes))


def test_an_untied_student_computes_what_it_did():
    student, ids = tied_model(), torch.arange(10, 30)[None]
    expected = student(input_ids=ids).logits
    untie(student)
    assert torch.equal(student(input_ids=ids).logits, expected)
    assert student.get_output_embeddings().weight is not student.get_input_embeddings().weight


def test_a_merged_student_that_is_another_model_is_an_error(tmp_path, monkeypatch):
    """The check itself: with tied embeddings left as they are, merging changes both."""
    monkeypatch.setattr("stages.student.adapters._untie_adapted", lambda *_: None)
    student = tied_model()
    adapted = add_adapter(student, {"peft_type": "LORA", "r": 4, "target_modules": ["lm_head"]}, print)
    learn(student)
    with pytest.raises(ModelError, match=r"adapter: merged .* another model: logits of up to .* differ by"):
        save_adapted(adapted, tmp_path, [np.arange(10, 30)])
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_training_an_adapter_of_a_tied_head_gives_the_student_that_was_trained(attention, tmp_path):
    folder = tmp_path / "tied"
    tied_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    peft = {**LORA, "target_modules": ["q_proj", "lm_head"]}
    train(folder, tmp_path / "out", None, student=StudentSettings(model=str(folder), peft=peft), objective=DSS)
    after = weights(tmp_path / "out")
    assert not torch.equal(after["lm_head.weight"], after["model.embed_tokens.weight"])
    assert torch.equal(after["model.embed_tokens.weight"], weights(folder)["model.embed_tokens.weight"])


def test_training_an_adapter_gives_a_plain_merged_checkpoint_and_the_adapter(folder, attention, tmp_path):
    train(folder, tmp_path, attention, student=StudentSettings(model=str(folder), peft=LORA))
    before, after = weights(folder), weights(tmp_path)
    assert after.keys() == before.keys()
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any(one.abs().sum() > 0 for name, one in adapter.items() if "lora_B" in name)
    assert torch.equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(after[name], before[name])
    assert "peft" not in (tmp_path / "config.json").read_text()


def test_a_stopped_training_of_an_adapter_goes_on_to_the_same_weights(folder, attention, tmp_path):
    student = StudentSettings(model=str(folder), peft=LORA)
    train(folder, tmp_path / "undisturbed", attention, student=student)
    with pytest.raises(Interrupted):
        train(folder, tmp_path / "stopped", attention, student=student, progress=TermAfter(3))
    (checkpoint,) = (tmp_path / "stopped" / "checkpoints").glob("checkpoint-*")
    kept = load_file(checkpoint / "model.safetensors")
    assert kept and all("lora_" in name or "aligner" in name for name in kept), (
        "the student's own weights do not change"
    )
    train(folder, tmp_path / "stopped", attention, student=student)
    one, other = weights(tmp_path / "undisturbed"), weights(tmp_path / "stopped")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_freshly_initialised_students_learn_through_an_adapter_too(tmp_path: Path):
    folder = tiny_model_folder(tmp_path / "student", "gpt2", hidden=16, heads=2)
    given = {**LORA, "target_modules": ["c_attn"], "fan_in_fan_out": True}
    student = StudentSettings(model=str(folder), initialise="random", peft=given)
    train(folder, tmp_path / "out", None, student=student, objective=DSS, examples=EXAMPLES[:4])
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.model_type == "gpt2"
