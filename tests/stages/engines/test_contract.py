"""The contract of generation engines, held against all of `tests.engines`, and that they say the same."""

import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
import torch

from cache.rationales import Attempt, RationaleStore
from cache.spaces import Space
from data.errors import ConfigError, EngineError, Interrupted, ModelError
from data.sets.synthetic import synthetic_questions
from pipeline.results.card import card_text
from stages.engines.contract import TOO_LONG, Decoding, Engine, EngineSetup, Generation, prompt_seed
from stages.engines.kinds.openai import OpenAiEngine
from stages.engines.kinds.vllm import VllmEngine
from stages.engines.start import open_engine
from stages.models.identity import identify_model
from stages.models.tokenizer import encode, load_tokenizer, render_chat
from stages.rationales.spec import rationale_spec
from stages.rationales.write import write_rationales
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import RationaleSettings, TeacherSettings
from tests.engines import ENGINES, SERVED, STARTED, opened, require
from tests.fakes import ScriptedEngine, ending_model_folder, tiny_model_folder, tiny_tokenizer

WINDOW = 320
GREEDY = Decoding(max_tokens=24)
SAMPLED = Decoding(max_tokens=24, temperature=1.0, top_p=0.9, seed=3)
PROMPTS = [f"Q: Tom has {count} apples and eats {count - 1}. How many are left?\nA:" for count in range(2, 10)] + ["Ä"]
CARD = {
    "run": "run", "seed": 0, "tasks": ["predict", "explain"], "objective": {"name": "dss"}, "records": 1, "steps": 1,
    "teacher": {"model": "teacher", "revision": "0"}, "data": [{"name": "synthetic", "split": "train"}],
    "student": {"model": "student", "revision": "0", "initialise": "random", "source": "folder"},
    "rationales": "0", "attention": None, "training": {"epochs": 1, "batch_size": 1, "learning_rate": 1e-3},
}  # fmt: skip
"""What a student's card is made of."""
QUESTIONS = synthetic_questions(12, seed=5, split="train")
RATIONALES = RationaleSettings(shots=0, max_tokens=24, piece=5)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> EngineSetup:
    folder = tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny", "llama", hidden=128)
    arguments = {"max_model_len": WINDOW}
    return EngineSetup(
        model=str(folder), revision=None, decoding=GREEDY, dtype="float32", device="cpu", arguments=arguments
    )


@pytest.fixture(scope="module", params=ENGINES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(name: str, setup: EngineSetup) -> Iterator[Engine]:
    with opened(name, setup) as engine:
        yield engine


@pytest.fixture(scope="module")
def reference(setup: EngineSetup) -> list[str]:
    """Greedy continuations, one prompt and one token at a time, by arg max over the model's logits."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(setup.model, dtype=torch.float32)
    tokenizer = load_tokenizer(setup.model, None)
    texts = []
    for prompt in PROMPTS:
        ids = encode(tokenizer, [prompt], adds_special_tokens=True)[0]
        start = len(ids)
        with torch.no_grad():
            while len(ids) < start + GREEDY.max_tokens:
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        texts.append(tokenizer.decode(ids[start:]))
    return texts


@pytest.fixture(scope="module")
def answers(engine: Engine, reference: list[str]) -> dict[str, list[Generation]]:
    """What the engine says to each of these calls."""
    calls = {
        "greedy": (PROMPTS, GREEDY),
        "a stop string": (PROMPTS, replace(GREEDY, stop=("\n\n", _stop(reference)))),
        "a stop string in the prompt": ([PROMPTS[0]], replace(GREEDY, stop=("apples", "A:"))),
        "too long": (["x" * WINDOW, PROMPTS[0], "x" * (3 * WINDOW)], GREEDY),
        "up to the window": (["x" * (WINDOW - 5)], GREEDY),
        "sampled": (PROMPTS, SAMPLED),
        "one of the sampled by itself": (PROMPTS[4:5], SAMPLED),
        "sampled with another seed": (PROMPTS, replace(SAMPLED, seed=4)),
    }
    return {name: engine.generate(prompts, decoding) for name, (prompts, decoding) in calls.items()}


def _stop(reference: list[str]) -> str:
    return reference[0][5:7]


def test_greedy_text_is_that_of_the_model_itself(answers: dict[str, list[Generation]], reference: list[str]) -> None:
    generations = answers["greedy"]
    assert [generation.text for generation in generations] == reference
    assert {generation.finish_reason for generation in generations} == {"length"}
    assert all(len(text) == GREEDY.max_tokens for text in reference) and len(set(reference)) > 1


def test_a_stop_string_ends_a_text_and_is_cut_off(answers: dict[str, list[Generation]], reference: list[str]) -> None:
    cut = reference[0][: reference[0].index(_stop(reference))]
    assert answers["a stop string"][0] == Generation(text=cut, finish_reason="stop")


def test_a_stop_string_in_the_prompt_stops_nothing(answers: dict[str, list[Generation]], reference: list[str]) -> None:
    generation = answers["a stop string in the prompt"][0]
    assert generation == Generation(text=reference[0], finish_reason="length")


def test_a_prompt_too_long_for_the_model_is_reported_and_the_others_are_answered(
    answers: dict[str, list[Generation]], reference: list[str]
) -> None:
    found = answers["too long"]
    assert found[0] == found[2] == Generation(text="", finish_reason="too_long")
    assert found[1].text == reference[0]


def test_a_text_ends_where_the_window_does(answers: dict[str, list[Generation]]) -> None:
    generation = answers["up to the window"][0]
    assert (len(generation.text), generation.finish_reason) == (5, "length")


def test_sampling_is_repeatable_and_depends_on_no_other_prompt(
    answers: dict[str, list[Generation]], reference: list[str]
) -> None:
    together = answers["sampled"]
    assert answers["one of the sampled by itself"] == together[4:5]
    assert [generation.text for generation in together] != reference
    assert answers["sampled with another seed"] != together


def test_the_lines_of_a_students_card_ask_it_as_its_evaluation_does(
    name: str, engine: Engine, setup: EngineSetup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name not in ("transformers", "vllm"):
        pytest.skip("a card says how transformers and vLLM ask a student")
    code = next(block for block in re.findall(r"```python\n(.*?)```", card_text(CARD), re.DOTALL) if name in block)
    if isinstance(engine, VllmEngine):  # the one that runs, in the place of another start

        def start(model: str, **arguments: object) -> object:
            assert (model, arguments) == (".", {"dtype": "float32"})
            return engine.llm

        monkeypatch.setattr("vllm.LLM", start)
    monkeypatch.chdir(setup.model)
    exec(code.replace("256", "24"), {})
    (expected,) = engine.generate(["explain: QUESTION\n"], Decoding(max_tokens=24))
    assert capsys.readouterr().out == expected.text + "\n"


def test_no_prompts_give_no_generations(engine: Engine) -> None:
    assert engine.generate([]) == []
    assert list(engine.stream([])) == []


def test_a_stream_yields_every_place_once_with_the_answer_of_its_prompt(
    engine: Engine, reference: list[str], answers: dict[str, list[Generation]]
) -> None:
    """After a stream that was given up."""
    with closing(engine.stream(100 * PROMPTS)) as given_up:
        for _ in range(3):
            place, generation = next(given_up)
            assert generation.text == reference[place % len(PROMPTS)]
    found = list(engine.stream([*PROMPTS, "x" * WINDOW, *reversed(PROMPTS), PROMPTS[0]], SAMPLED))
    sampled = [generation.text for generation in answers["sampled"]]
    expected = [*sampled, "", *reversed(sampled), sampled[0]]
    assert sorted(place for place, _ in found) == list(range(len(expected)))
    texts = {place: generation.text for place, generation in found}
    assert [texts[place] for place in range(len(expected))] == expected


@pytest.fixture(scope="module")
def records(setup: EngineSetup, tmp_path_factory: pytest.TempPathFactory) -> Mapping[object, Attempt]:
    """What `transformers` writes to the questions."""
    with opened("transformers", setup) as engine:
        return written("transformers", engine, setup, tmp_path_factory.mktemp("records"))


def written(name: str, engine: Engine, setup: EngineSetup, folder: Path) -> Mapping[object, Attempt]:
    """All that a stage with this engine commits to an empty store."""
    teacher = TeacherSettings(model=setup.model, dtype="float32", device="cpu")
    settings = replace(RATIONALES, engine=name)
    identity = identify_model(setup.model, None)
    space = Space.open_or_create(folder, "rationales", "tiny", rationale_spec(identity, teacher, settings))
    store = RationaleStore(space)
    progress, stop = SilentProgress(), StopSignal()
    write_rationales(
        QUESTIONS, store, teacher, settings, identity=identity, progress=progress, stop=stop, engine=engine
    )
    return {space.path.name: None, **store.attempts()}  # type: ignore[dict-item]


def test_all_engines_write_the_same_records_into_the_same_space(
    name: str, engine: Engine, setup: EngineSetup, records: Mapping[object, Attempt], tmp_path: Path
) -> None:
    assert written(name, engine, setup, tmp_path) == records
    assert len(records) > 2 * len(QUESTIONS), "both phases were asked"
    assert len({attempt.output for attempt in records.values() if attempt}) > len(QUESTIONS)


@pytest.fixture(scope="module", params=STARTED)
def ending_engine(
    request: pytest.FixtureRequest, setup: EngineSetup, tmp_path_factory: pytest.TempPathFactory, reference: list[str]
) -> Iterator[Engine]:
    """An engine for a model that wants to end instead of writing the fourth letter of the reference."""
    folder = ending_model_folder(tmp_path_factory.mktemp("models") / "ending", Path(setup.model), reference[0][3])
    with opened(request.param, replace(setup, model=str(folder))) as engine:
        yield engine


def test_the_end_token_ends_a_text_and_is_not_shown(ending_engine: Engine, reference: list[str]) -> None:
    """The end token outbids the fourth letter of the reference wherever that would come."""
    expected = reference[0][: reference[0].index(reference[0][3])]
    assert ending_engine.generate(PROMPTS[:1])[0] == Generation(text=expected, finish_reason="stop")


@pytest.mark.vllm
@pytest.mark.parametrize("ending_engine", ["vllm"], indirect=True)
def test_a_vllm_process_that_is_killed_is_an_engine_error(ending_engine: Engine) -> None:
    """Last of the tests with this engine, which is of no more use then: starting another takes half a minute."""
    from stages.engines.kinds.vllm import VllmEngine

    assert isinstance(ending_engine, VllmEngine) and ending_engine.processes
    assert all(isinstance(process, ForkProcess) for process in ending_engine.processes), "stages/engines/vllm_processes"
    answers = ending_engine.stream(1000 * PROMPTS, replace(GREEDY, max_tokens=WINDOW))
    answered = [next(answers)]
    for process in ending_engine.processes:
        process.kill()
    with pytest.raises(EngineError) as caught:
        answered.extend(answers)
    assert f"vLLM failed with {1000 * len(PROMPTS) - len(answered):,} prompts unanswered" in str(caught.value)


@pytest.mark.parametrize("name", STARTED)
def test_an_argument_that_an_engine_does_not_know_is_a_configuration_error(name: str, setup: EngineSetup) -> None:
    require(name)
    with pytest.raises(ConfigError) as caught:
        open_engine(name, replace(setup, arguments={"no_such_argument": 1}))  # type: ignore[arg-type]
    assert "no_such_argument" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.vllm
@pytest.mark.parametrize("name", ["openai"], indirect=True)
def test_a_real_server_is_an_author_as_well_and_says_itself_what_is_too_long(
    engine: Engine, setup: EngineSetup, reference: list[str]
) -> None:
    assert isinstance(engine, OpenAiEngine)
    author = replace(engine._server, is_teacher=False)
    with open_engine("openai", replace(setup, server=author, arguments={})) as other:
        answers = other.generate([PROMPTS[0], "x" * (WINDOW + 1)])
    assert answers == [Generation(text=reference[0], finish_reason="length"), TOO_LONG]


@pytest.mark.vllm
@pytest.mark.parametrize("name", ["openai"], indirect=True)
def test_a_real_server_refuses_a_wrong_key_and_a_wrong_name(
    engine: Engine, setup: EngineSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(engine, OpenAiEngine)
    nameless = replace(engine._server, renamed=False, model=setup.model)
    with (
        pytest.raises(ConfigError, match=f"serves {SERVED}"),
        open_engine("openai", replace(setup, server=nameless)) as e,
    ):
        e.generate(PROMPTS)
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        engine.generate(PROMPTS)
    assert "wrong" not in str(caught.value)


def test_batches_of_any_size_give_the_same_text(setup: EngineSetup, reference: list[str]) -> None:
    with open_engine("transformers", replace(setup, arguments={"batch_size": 2, "max_model_len": WINDOW})) as engine:
        assert [generation.text for generation in engine.generate(PROMPTS)] == reference


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2"])
def test_left_padding_changes_nothing_in_other_architectures(tmp_path: Path, architecture: str) -> None:
    folder = tiny_model_folder(tmp_path / architecture, architecture)  # type: ignore[arg-type]
    setup = EngineSetup(model=str(folder), revision=None, decoding=GREEDY, dtype="float32", device="cpu")
    with open_engine("transformers", setup) as engine:
        assert engine.generate(PROMPTS) == [engine.generate([prompt])[0] for prompt in PROMPTS]


def test_preferences_of_the_checkpoint_do_not_change_greedy_text(
    setup: EngineSetup, tmp_path: Path, reference: list[str]
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(setup.model, dtype=torch.float32)
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=3.0, max_new_tokens=3)
    model.save_pretrained(tmp_path)
    load_tokenizer(setup.model, None).save_pretrained(tmp_path)
    with open_engine("transformers", replace(setup, model=str(tmp_path))) as engine:
        assert [generation.text for generation in engine.generate(PROMPTS)] == reference


def test_samples_follow_the_nucleus_of_the_distribution() -> None:
    """Probabilities 0.5, 0.3, 0.15, 0.05 with a nucleus of 0.75 leave the first two, at 5 to 3."""
    from stages.engines.kinds.transformers import _SeededSampling

    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(4000, 1)
    sampling = _SeededSampling(Decoding(max_tokens=1, temperature=1.0, top_p=0.75), range(4000), torch.device("cpu"))
    counts = torch.bincount(sampling(torch.empty(0), scores).argmax(-1), minlength=4)
    assert counts[2:].tolist() == [0, 0]
    assert abs(counts[0].item() / 4000 - 0.625) < 0.03


def test_temperature_sharpens_the_distribution() -> None:
    """At temperature 0.5 odds of 3 to 1 become 9 to 1."""
    from stages.engines.kinds.transformers import _SeededSampling

    scores = torch.tensor([0.75, 0.25]).log().repeat(4000, 1)
    sampling = _SeededSampling(Decoding(max_tokens=1, temperature=0.5), range(4000), torch.device("cpu"))
    assert abs((sampling(torch.empty(0), scores).argmax(-1) == 0).float().mean().item() - 0.9) < 0.02


def test_prompts_and_seeds_have_their_own_random_numbers() -> None:
    assert len({prompt_seed(seed, prompt) for seed in range(3) for prompt in ("a", "b", "")}) == 9
    assert prompt_seed(0, "a") == prompt_seed(0, "a") < 2**32


def test_a_question_is_data_to_the_chat_template_and_no_part_of_it() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    text = "What is {{ 3 * 4 }}? {% set x = 1 %}"
    assert render_chat(tokenizer, [{"role": "user", "content": text}]) == f"<user>{text}<assistant>"


def test_chat_without_a_template_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="needs a tokenizer with a chat template"):
        render_chat(tiny_tokenizer(), [{"role": "user", "content": "hello"}])


def test_special_tokens_are_added_unless_the_prompt_brings_them() -> None:
    tokenizer = tiny_tokenizer(adds_begin=True)
    with_begin = encode(tokenizer, ["<s>a", "a"], adds_special_tokens=False)
    assert with_begin[0] == encode(tokenizer, ["a"], adds_special_tokens=True)[0] == [0, *with_begin[1]]


def test_a_model_that_transformers_cannot_load_is_a_configuration_error(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    setup = EngineSetup(model=str(tmp_path), revision=None, decoding=GREEDY)
    with pytest.raises(ConfigError, match="transformers cannot load it"):
        open_engine("transformers", setup)


def test_the_scripted_engine_of_the_tests_keeps_the_contract() -> None:
    engine = ScriptedEngine(str.upper, fails_after=2)
    with engine:
        assert engine.generate(["a", "b"]) == [Generation(text=text, finish_reason="stop") for text in "AB"]
        with pytest.raises(EngineError, match="after 2 prompts"):
            engine.generate(["c"])
    assert engine.closed and engine.prompts == ["a", "b"]


def test_the_scripted_engine_of_the_tests_fails_in_the_middle_of_a_stream() -> None:
    answers = ScriptedEngine(str.upper, fails_after=2, backwards=True).stream(["a", "b", "c"])
    assert [(place, generation.text) for place, generation in (next(answers), next(answers))] == [(2, "C"), (1, "B")]
    with pytest.raises(EngineError, match="after 2 prompts"):
        next(answers)


@pytest.mark.parametrize("name", ["batch_size", "max_model_len"])
@pytest.mark.parametrize("value", ["many", 0, -1, 2.5, True, [8], {"a": 1}])
def test_a_number_of_transformers_that_is_none_is_refused(setup: EngineSetup, name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"engine_arguments.{name}: expected a whole number from 1, found "):
        open_engine("transformers", replace(setup, arguments={name: value}))


@pytest.mark.parametrize(
    "arguments",
    [
        {"dtype": "float99"},
        {"attn_implementation": 5},
        {"quantization_config": "x"},
        {"num_hidden_layers": "many"},
        {"vocab_size": -1},
        {"hidden_size": 7},
    ],
)
def test_whatever_transformers_raises_of_an_argument_is_one_of_our_errors(
    setup: EngineSetup, arguments: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match="transformers cannot load it"):
        open_engine("transformers", replace(setup, arguments=arguments))


def test_a_signal_ends_a_batch_of_transformers_in_the_middle(setup: EngineSetup) -> None:
    class AfterTenLooks(StopSignal):
        looks = 0

        def check(self, saved: str) -> None:
            self.looks += 1
            self.received = signal.SIGTERM if self.looks > 10 else None
            super().check(saved)

    stop = AfterTenLooks()
    with open_engine("transformers", replace(setup, stop=stop)) as engine, pytest.raises(Interrupted, match="SIGTERM"):
        engine.generate(PROMPTS, Decoding(max_tokens=200))
    assert stop.looks == 11
