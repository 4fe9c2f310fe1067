"""Hashes of vocabularies: equal where ids mean the same, and read from files as transformers would."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data.errors import ConfigError
from stages.models.identity import identify_model
from stages.soft_labels import vocabulary
from stages.soft_labels.vocabulary import Vocabulary, vocabulary_hash, vocabulary_of
from tests.fakes import BEGIN, END, PAD, tiny_model_folder, tiny_tokenizer


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    vocabulary._kept.cache_clear()
    return tmp_path / "user" / "molsaki" / "hashes"


def saved(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return folder


def changed(folder: Path, name: str, **entries: object) -> Path:
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | entries))
    return folder


def as_transformers_says(folder: Path) -> Vocabulary:
    return vocabulary._vocabulary(*vocabulary._from_transformers(folder))


def of_another_model(kind: str) -> PreTrainedTokenizerFast:
    pieces = [BEGIN, END, PAD, "<unk>", "▁", *map(chr, range(0x20, 0x7F)), "\n", "\t"]
    kinds = {
        "unigram": lambda: models.Unigram([(piece, -1.0) for piece in pieces], unk_id=3, byte_fallback=False),
        "words": lambda: models.WordLevel({piece: place for place, piece in enumerate(pieces)}, unk_token="<unk>"),
        "pieces": lambda: models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="<unk>"),
    }
    tokenizer = Tokenizer(kinds[kind]())
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=PAD, unk_token="<unk>"
    )


def test_what_changes_no_id_changes_no_hash(tmp_path: Path):
    plain = saved(tmp_path / "plain")
    template = saved(tmp_path / "template")
    changed(template, "tokenizer_config.json", chat_template="{{ messages }}", model_max_length=7, add_bos_token=True)
    begins = saved(tmp_path / "begins", tiny_tokenizer(adds_begin=True))
    lower = tiny_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.NFC()
    folders = [plain, template, begins, saved(tmp_path / "lower", lower)]
    assert len({(folder / "tokenizer.json").read_bytes() for folder in folders}) == 3
    assert {vocabulary_of(folder) for folder in folders} == {vocabulary_of(plain)}
    assert vocabulary_of(plain).size == len(tiny_tokenizer()) == 259


def another_id(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    ids = content["model"]["vocab"]
    ids["A"], ids["B"] = ids["B"], ids["A"]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def one_more(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["figs"])
    tokenizer.save_pretrained(folder)


def one_more_special(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("figs", special=True)])
    tokenizer.save_pretrained(folder)


def special_by_its_name(folder: Path) -> None:
    changed(folder, "tokenizer_config.json", eos_token="A")


def named_alone(folder: Path) -> None:
    changed(folder, "tokenizer_config.json", sep_token="<sep>")


def named_as_extra(folder: Path) -> None:
    changed(folder, "tokenizer_config.json", extra_special_tokens=["<tool>"])


def named_as_added(folder: Path) -> None:
    token = {"content": "<x>", "special": True, "normalized": False}
    changed(folder, "tokenizer_config.json", added_tokens_decoder={"259": token})


def named_in_the_old_map(folder: Path) -> None:
    changed(folder, "special_tokens_map.json", mask_token={"content": "<mask>", "lstrip": False})


CHANGES: list[Callable[[Path], None]] = [
    another_id,
    one_more,
    one_more_special,
    special_by_its_name,
    named_alone,
    named_as_extra,
    named_as_added,
    named_in_the_old_map,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_changes_an_id_or_what_is_special_changes_the_hash_as_transformers_sees_it(
    change: Callable[[Path], None], tmp_path: Path
):
    folder = saved(tmp_path / "one")
    before = vocabulary_of(folder)
    change(folder)
    assert vocabulary_of(folder).hash != before.hash
    assert vocabulary_of(folder) == as_transformers_says(folder)


def test_each_change_gives_another_hash(tmp_path: Path):
    folders = []
    for change in CHANGES:
        folders.append(saved(tmp_path / change.__name__))
        change(folders[-1])
    assert len({vocabulary_hash(folder) for folder in folders}) == len(CHANGES)


@pytest.mark.parametrize("kind", ["unigram", "words", "pieces"])
def test_other_kinds_of_models_are_read_as_transformers_does(kind: str, tmp_path: Path):
    folder = saved(tmp_path / kind, of_another_model(kind))
    assert vocabulary_of(folder) == as_transformers_says(folder)


def test_a_tokenizer_without_tokenizer_json_has_the_hash_of_the_same_one_with_it(tmp_path: Path):
    """One of GPT-2's form, which says its ids in vocab.json."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: place for place, token in enumerate([*letters, "<|endoftext|>"])}
    old = tmp_path / "old"
    old.mkdir()
    (old / "vocab.json").write_text(json.dumps(ids))
    (old / "merges.txt").write_text("#version: 0.2\n")
    (old / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    new = saved(tmp_path / "new", AutoTokenizer.from_pretrained(old))
    assert (new / "tokenizer.json").exists() and not (old / "tokenizer.json").exists()
    assert vocabulary_of(old) == vocabulary_of(new) and vocabulary_of(old).size == 257


def test_an_identified_model_has_the_hash_of_its_folder(tmp_path: Path):
    folder = tiny_model_folder(tmp_path / "model", "llama")
    assert vocabulary_hash(identify_model(str(folder), None)) == vocabulary_hash(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {}}', '{"model": {"vocab": {}}, "added_tokens": [{}]}'])
def test_a_broken_file_is_named(content: str, tmp_path: Path):
    folder = saved(tmp_path / "broken")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=r"tokenizer\.json: its vocabulary cannot be read"):
        vocabulary_of(folder)


# Kept


def test_a_large_vocabulary_is_parsed_once_for_all_processes(
    tmp_path: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = saved(tmp_path / "one")
    assert vocabulary_of(folder).size < vocabulary.LEAST and not user_cache.exists()
    monkeypatch.setattr(vocabulary, "LEAST", 200)
    vocabulary._kept.cache_clear()
    found = vocabulary_of(folder)
    (kept,) = user_cache.iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(vocabulary, "_read", None)
        vocabulary._kept.cache_clear()
        assert vocabulary_of(folder) == found
    for damaged in (b"", b"[]", kept.read_bytes().replace(b'"rule":1', b'"rule":0'), b'{"files": "x"}'):
        kept.write_bytes(damaged)
        vocabulary._kept.cache_clear()
        assert vocabulary_of(folder) == found and json.loads(kept.read_bytes())["vocabulary"] == found.hash
    another_id(folder)
    assert vocabulary_of(folder) != found and len(list(user_cache.iterdir())) == 2


def test_nothing_heavy_is_imported_for_a_tokenizer_json(tmp_path: Path):
    folder = saved(tmp_path / "one")
    code = (
        "import sys; from pathlib import Path; from stages.soft_labels.vocabulary import vocabulary_hash;"
        f"print(vocabulary_hash(Path({str(folder)!r}))); print('transformers' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [vocabulary_hash(folder), "False", "False"]
