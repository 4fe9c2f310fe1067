"""Training records from a memory map: the same in every field, tokenized once, and the same student in the end."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cache.keys import record_key
from cache.reader import AttentionStore
from cache.spaces import Space
from cache.writer import AttentionBlock, AttentionWriter
from data.errors import ConfigError, MissingRecordsError
from data.prompts import explain_prompt, predict_prompt, predict_target
from data.readers import read_questions, read_rationales
from data.records import Question, Rationale
from data.settings import DataSource, RationaleFields
from stages.attention.select import Example, Selection, select_examples
from stages.attention.selected import Place, StoredExamples, keep_selection, read_selection
from stages.attention.stepwise import stepwise_attention
from stages.attention.tokens import encode, locate
from stages.head import IGNORED
from stages.mixture import Target
from stages.runtime.progress import TEXTS, SilentProgress, StopSignal
from stages.settings import AttentionSettings, ObjectiveSettings, StudentSettings, TrainingSettings
from stages.student.looks import looked_at
from stages.student.records import kept
from stages.student.records.kept import keys_of_records, lengths_of, longest_of, read_records, take_records
from stages.student.texts import TrainingRecord, TrainingText
from stages.student.train import train_student
from tests.cache.truth import make_space
from tests.fakes import tiny_model_folder, tiny_tokenizer

ODD = (
    ("Tom 🦉🦉 has 3 figs\r\nand\t4 more 👩‍👩‍👧‍👦.", "3 🦉 and 4.\r\n\r\n7 in all. The answer is 7."),
    ("</s> Tom <s> has 3 <|endoftext|> figs </s>", "<pad> 3 </s>.</s> The answer is 3.<s>"),
    ("  3  ", ".\n\n.\n \n. 3"),
    ("Is 12 > 10?\u2028\u00a0\u3000Or 5?", "\u3000\u300012 is\u00a0more. . . The answer is 12."),
    ("有3个苹果，又买4个。", "3 + 4 = 7。答案是 7。"),
    ("a\x00b\ufeff 3", "\x1f3\x1c 4\x85 The answer is 3."),
    ("e\u0301" * 40 + " 3", "٣ and ３ ½ 1,234.5 make 3. " * 30),
    ("3", "3"),
)


def rationale(text: str, written: str, number: int) -> Rationale:
    question = Question(id=f"q {number}", dataset="odd", text=text, answer="3", answer_kind="number")
    return Rationale(question=question, text=written, answer="3", phase="plain")


RATIONALES = [rationale(*texts, number) for number, texts in enumerate(ODD)]


def learned_tokenizer(*, ending: str = "$A") -> PreTrainedTokenizerBase:
    """Pairs of bytes that occur often, a blank in front of each text, and special tokens around it as `ending` says."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "</s>", "[SEP]"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts = [text for texts in ODD for text in texts]
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=letters, special_tokens=specials)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in specials])
    places = [(token, tokenizer.token_to_id(token)) for token in specials]
    tokenizer.post_processor = processors.TemplateProcessing(single=ending, special_tokens=places)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[1])


TOKENIZERS = {
    "bytes": tiny_tokenizer(),
    "begin": tiny_tokenizer(adds_begin=True),
    "pairs": learned_tokenizer(),
    "ends": learned_tokenizer(ending="<s> $A [SEP]"),
}


def labelled(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray, spans: np.ndarray, start: int) -> TrainingText:
    labels = [int(token) if end > start else IGNORED for token, (_, end) in zip(ids, spans.tolist(), strict=True)]
    more = [] if ids[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id]
    return TrainingText(ids=np.array([*ids, *more], np.int64), labels=np.array([*labels, *more], np.int64))


def by_itself(tokenizer: PreTrainedTokenizerBase, example: Example, target: Target | None) -> TrainingRecord:
    """The slow reference: one text at a time, token by token."""
    question, asking = example.marked.question, example.rationale.question
    prompt = explain_prompt(question)
    located = locate(tokenizer, example.marked, prefix=prompt[: prompt.index(question)])
    asked = predict_prompt(question)
    return TrainingRecord(
        key=example.key,
        name=f"{asking.dataset} {asking.id} (key {example.key[:16]})",
        predict=labelled(tokenizer, *encode(tokenizer, asked + predict_target(asking)), len(asked)),
        explain=labelled(tokenizer, located.ids, located.spans, len(prompt)),
        located=located,
        target=target,
        rationale_from=len(prompt),
        answer_from=len(prompt + example.marked.rationale) - len(answer_sentence_in(example)),
    )


def answer_sentence_in(example: Example) -> str:
    """The last sentence, where it states the answer."""
    last = example.marked.rationale[example.marked.rationale.rfind("The answer is ") :]
    return last if last == f"The answer is {example.rationale.answer}." else ""


def assert_same(found: object, expected: object) -> None:
    """Equal in type, in every field and every bit."""
    assert type(found) is type(expected)
    if is_dataclass(expected):
        for field in fields(expected):
            assert_same(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected, strict=True)
    else:
        assert found == expected


def place_in(folder: Path) -> Place:
    return Place(space=Space.open_or_create(folder, "rationales", "teacher", {"schema": 1}), of={"marking": "all"})


def stored(folder: Path, selection: Selection) -> StoredExamples:
    examples = keep_selection(place_in(folder), selection, {}).selection.examples
    assert isinstance(examples, StoredExamples)
    return examples


def again(folder: Path) -> StoredExamples:
    """The same as a later process reads them."""
    found = read_selection(place_in(folder))
    assert found is not None and isinstance(found.selection.examples, StoredExamples)
    return found.selection.examples


def read(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], targets: Mapping[str, Target] | None = None
) -> Sequence[TrainingRecord]:
    return read_records(tokenizer, "hash", examples, targets or {}, SilentProgress())


def target(number: int) -> Target:
    return Target(attention=np.full((1, 2, 3), number, np.float32), layer_weights=np.ones(2, np.float32))


@pytest.fixture
def selection() -> Selection:
    selected = select_examples(RATIONALES, AttentionSettings(steps="sentences"))
    assert len(selected.examples) == len(ODD)
    return selected


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_field_of_every_record_is_that_of_its_text_by_itself(name, selection, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "PIECE", 3)
    tokenizer = TOKENIZERS[name]
    targets = {example.key: target(number) for number, example in enumerate(selection.examples) if number % 2}
    expected = [by_itself(tokenizer, example, targets.get(example.key)) for example in selection.examples]
    stored(tmp_path, selection)
    for found in (
        read(tokenizer, selection.examples, targets),
        read(tokenizer, again(tmp_path), targets),
        read(tokenizer, again(tmp_path), targets),
    ):
        assert_same(tuple(found), tuple(expected))


@pytest.mark.parametrize("name", ["bytes", "pairs"])
def test_records_of_a_published_set_are_those_of_its_texts(name, benchmark_data: Path, tmp_path: Path):
    questions = read_questions(DataSource(name="svamp", path=str(benchmark_data / "svamp" / "chilled_train.jsonl")))
    file = benchmark_data / "palm_rationales" / "svamp_palm_joined.jsonl"
    named = RationaleFields(id="ID", rationale="palm_rationale", answer="palm_value")
    texts = read_rationales(str(file), questions, fields=named)
    rationales = [
        Rationale(question=question, text=texts[question.id], answer=question.answer or "", phase="imported")
        for question in questions
        if question.id in texts
    ]
    selection = select_examples(rationales, AttentionSettings())
    stored(tmp_path, selection)
    read(TOKENIZERS[name], again(tmp_path))
    found = read(TOKENIZERS[name], again(tmp_path))
    assert len(found) == len(selection.examples) > 500
    for record, example in zip(found, selection.examples, strict=True):
        assert_same(record, by_itself(TOKENIZERS[name], example, None))


def test_the_next_student_tokenizes_nothing_and_another_tokenizer_does(selection, tmp_path, monkeypatch):
    stored(tmp_path, selection)
    read(TOKENIZERS["bytes"], again(tmp_path))
    monkeypatch.setattr(kept, "training_records", None)
    assert len(read(TOKENIZERS["bytes"], again(tmp_path))) == len(ODD)
    with pytest.raises(TypeError):
        read_records(TOKENIZERS["bytes"], "another", again(tmp_path), {}, SilentProgress())
    assert len(list((tmp_path / "texts").glob("*.tokens"))) == 1


def test_tokens_that_were_damaged_or_made_by_other_rules_are_made_again(selection, tmp_path, monkeypatch):
    stored(tmp_path, selection)
    read(TOKENIZERS["bytes"], again(tmp_path))
    (path,) = (tmp_path / "texts").glob("*.tokens")
    whole = path.read_bytes()
    path.write_bytes(whole[:-70] + bytes([whole[-70] ^ 1]) + whole[-69:])
    expected = by_itself(TOKENIZERS["bytes"], selection.examples[-1], None)
    assert_same(read(TOKENIZERS["bytes"], again(tmp_path))[-1], expected)
    assert path.read_bytes() == whole
    monkeypatch.setattr(kept, "code_version", lambda *_: "another")
    assert_same(read(TOKENIZERS["bytes"], again(tmp_path))[-1], expected)
    assert path.read_bytes() != whole


def test_progress_hears_of_each_text_and_nothing_is_left_of_what_was_interrupted(selection, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "PIECE", 3)

    class Heard(SilentProgress):
        def __init__(self) -> None:
            self.heard: list[object] = []

        def start(self, task: str, total: int, done: int = 0) -> None:
            self.heard.append((task, total))

        def advance(self, count: int = 1) -> None:
            self.heard.append(count)
            if len(self.heard) == stop:
                raise KeyboardInterrupt

    stored(tmp_path, selection)
    stop, progress = 3, Heard()
    with pytest.raises(KeyboardInterrupt):
        read_records(TOKENIZERS["bytes"], "hash", again(tmp_path), {}, progress)
    assert [path.suffix for path in (tmp_path / "texts").iterdir()] == [".selection"]
    stop, progress = 99, Heard()
    read_records(TOKENIZERS["bytes"], "hash", again(tmp_path), {}, progress)
    assert progress.heard == [(TEXTS, 8), 3, 3, 2]


def test_some_records_are_taken_alike_from_memory_and_from_the_map(selection, tmp_path):
    stored(tmp_path, selection)
    tokenizer = TOKENIZERS["pairs"]
    listed, mapped = read(tokenizer, selection.examples), read(tokenizer, again(tmp_path))
    some = read(tokenizer, again(tmp_path)[2:][1:])
    assert_same(tuple(some), tuple(listed[3:]))
    numbers = np.array([4, 1])
    assert_same(tuple(take_records(mapped, numbers)), tuple(take_records(listed, numbers)))
    assert_same(tuple(mapped[1:3]), tuple(listed[1:3]))
    for records in (listed, mapped):
        assert longest_of(records).tolist() == [record.length for record in listed]
        assert lengths_of(records, "predict").tolist() == [len(record.predict.ids) for record in listed]
        assert [*keys_of_records(records)] == [record.key for record in listed]
        assert [record.key for record in looked_at(records)] == sorted(record.key for record in listed)
        with pytest.raises(IndexError):
            records[8]


def test_a_student_learns_the_same_from_the_map_as_from_memory(tmp_path: Path):
    folder = tiny_model_folder(tmp_path / "model", "llama", hidden=16, heads=2, kv_heads=1)
    selection = select_examples(RATIONALES, AttentionSettings())
    teacher, tokenizer = AutoModelForCausalLM.from_pretrained(folder), tiny_tokenizer()
    marked = [example.marked for example in selection.examples]
    blocks = stepwise_attention(teacher, tokenizer, marked)
    space = make_space(tmp_path)
    AttentionWriter(space).append(
        [
            AttentionBlock(
                key=record_key(one),
                marked=one,
                attention=block,
                step_tokens=locate(tokenizer, one).step_tokens(),
            )
            for one, block in zip(marked, blocks, strict=True)
        ]
    )

    def train(out: Path, examples: Sequence[Example], *, max_length: int = 400) -> None:
        with StopSignal() as stop:
            train_student(
                examples,
                StudentSettings(model=str(folder), max_length=max_length),
                ObjectiveSettings(),
                TrainingSettings(epochs=2, batch_size=3, learning_rate=1e-2, device="cpu"),
                attention=AttentionStore(space),
                seed=0,
                out=out,
                fingerprint="same",
                progress=SilentProgress(),
                stop=stop,
            )

    train(tmp_path / "memory", selection.examples)
    stored(tmp_path, selection)
    for name in ("first", "second"):
        train(tmp_path / name, again(tmp_path))
        for file in ("layer_weights.parquet", "student_attention.parquet"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "memory" / file).read_bytes()
        expected = load_file(tmp_path / "memory" / "model.safetensors")
        for key, weight in load_file(tmp_path / name / "model.safetensors").items():
            assert weight.equal(expected[key]), key
    for examples in (selection.examples, again(tmp_path)):
        with pytest.raises(ConfigError, match="none of 8 training texts is that short"):
            train(tmp_path / "short", examples, max_length=3)


def test_missing_attention_is_counted_alike(tmp_path: Path):
    folder = tiny_model_folder(tmp_path / "model", "llama", hidden=16, heads=2, kv_heads=1)
    space = make_space(tmp_path)
    selection = select_examples(RATIONALES, AttentionSettings())
    first = selection.examples[0].marked
    shape = 2, len(first.step_spans), len(first.critical_spans)
    ones, tokens = np.ones(shape, np.float32), np.ones(shape[1], np.int32)
    AttentionWriter(space).append(
        [AttentionBlock(key=record_key(first), marked=first, attention=ones, step_tokens=tokens)]
    )
    for examples in (selection.examples, stored(tmp_path, selection)):
        with StopSignal() as stop, pytest.raises(MissingRecordsError, match="attention of 7 of 8 records is missing"):
            train_student(
                examples,
                StudentSettings(model=str(folder)),
                ObjectiveSettings(),
                TrainingSettings(device="cpu"),
                attention=AttentionStore(space),
                seed=0,
                out=tmp_path / "out",
                fingerprint="same",
                progress=SilentProgress(),
                stop=stop,
            )
