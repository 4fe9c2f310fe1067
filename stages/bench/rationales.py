"""What the rationale stage costs beside vLLM alone: the same prompts by the whole stage and by a bare `LLM.generate`.

In: the shape of a random teacher, and how many made-up questions it is asked. Out: seconds of both by rounds, or the
peak memory of one of them, and how many answers a kill would have lost. Both ask the same vLLM, which has forgotten its
prefixes before each round; the stage also makes the prompts, judges what comes and commits it. The teacher never ends a
text, so that all outputs have the same length; that both give the same texts is checked before the clock starts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal, TypeAlias

import torch

from cache.commits import Commit
from cache.rationales import Attempt, RationaleStore
from cache.spaces import Space
from data.errors import MismatchError
from data.prompts import rationale_prompt
from data.sets.synthetic import synthetic_questions
from stages.bench.measure import Memory, Rounds, Work, measure_memory, nothing, take_turns
from stages.engines.contract import Answers, Decoding, Engine
from stages.engines.kinds.vllm import VllmEngine
from stages.models.identity import identify_model
from stages.rationales.spec import rationale_spec
from stages.rationales.write import engine_setup, write_rationales
from stages.runtime.progress import SilentProgress, StopSignal
from stages.settings import Device, Dtype, RationaleSettings, TeacherSettings
from stages.toy.random_llama import SEED, Setting, Shape, random_llama, setting_on
from stages.toy.teacher import word_tokenizer

Method: TypeAlias = Literal["generate", "stage"]
METHODS: tuple[Method, ...] = ("generate", "stage")
POSITIONS = 2048
CPU = torch.device("cpu")
"""Where time and memory of the asking process are; vLLM computes in another one."""


@dataclass(frozen=True, kw_only=True)
class RationalesJob:
    """Everything that one measuring process needs to know; `folder` holds the teacher and what is written meanwhile."""

    folder: Path
    shape: Shape
    questions: int
    shots: int
    max_tokens: int
    piece: int
    repeats: int
    device: Device
    dtype: Dtype

    @property
    def teacher(self) -> Path:
        """Where the random teacher lies."""
        return self.folder / "teacher"


@dataclass(frozen=True, kw_only=True)
class RationaleTimes:
    """Seconds of each method by rounds, for so many tokens read and written.

    `uncommitted` is the largest number of answers that were there and not committed yet, at any moment of a run.
    """

    rounds: dict[Method, Rounds]
    prompt_tokens: int
    new_tokens: int
    uncommitted: int
    vllm: str
    setting: Setting


def write_teacher(job: RationalesJob) -> None:
    """Save a random Llama whose likeliest token is always part of a word: none that ends a text or a line."""
    tokenizer = word_tokenizer(synthetic_questions(500, seed=SEED, split="train"))
    model = random_llama(job.shape, positions=POSITIONS, vocabulary=len(tokenizer), device=CPU, dtype="float32")
    letters = [place for place in range(len(tokenizer)) if tokenizer.decode([place]).strip().isalpha()]
    others = torch.ones(len(tokenizer), dtype=torch.bool).index_fill_(0, torch.tensor(letters), False)
    with torch.no_grad():
        model.get_output_embeddings().weight[others] = 0
    model.save_pretrained(job.teacher)
    tokenizer.save_pretrained(job.teacher)


class _Asking:
    """A running vLLM, and both ways to put the questions to it."""

    def __init__(self, job: RationalesJob) -> None:
        self.job = job
        self.questions = synthetic_questions(job.questions, seed=SEED, split="train")
        self.prompts = [rationale_prompt(question, shots=job.shots) for question in self.questions]
        self._teacher = TeacherSettings(model=str(job.teacher), dtype=job.dtype, device=job.device)
        self._settings = RationaleSettings(
            engine="vllm",
            shots=job.shots,
            max_tokens=job.max_tokens,
            piece=job.piece,
            second_phase=False,
            engine_arguments={"max_model_len": POSITIONS},
        )
        self._identity = identify_model(str(job.teacher), None)
        self.engine = VllmEngine(engine_setup(self._teacher, self._settings, self._identity))
        self.works: Mapping[Method, Work] = {"generate": self.generate, "stage": self.stage}

    def forget(self, _method: Method | None = None) -> None:
        """Let vLLM forget the prefixes that it has read."""
        self.engine.llm.reset_prefix_cache()

    def generate(self) -> list[Any]:
        """All prompts at once, by vLLM alone."""
        from vllm import SamplingParams

        decoding = self.engine.setup.decoding
        sampling = SamplingParams(max_tokens=decoding.max_tokens, temperature=0.0, stop=list(decoding.stop))
        outputs: list[Any] = self.engine.llm.generate(self.prompts, sampling, use_tqdm=False)
        return outputs

    def stage(self, engine: Engine | None = None, store: type[RationaleStore] = RationaleStore) -> RationaleStore:
        """All questions by the stage, into a new store."""
        spec = rationale_spec(self._identity, self._teacher, self._settings)
        empty = Path(mkdtemp(dir=self.job.folder))  # another process may have written into the same folder
        space = Space.open_or_create(empty, "rationales", "bench", spec)
        into = store(space)
        write_rationales(
            self.questions,
            into,
            self._teacher,
            self._settings,
            identity=self._identity,
            progress=SilentProgress(),
            stop=StopSignal(),
            engine=engine or self.engine,
        )
        return into


class _Counting(Engine):
    """Looks, at each answer, how many are not committed yet."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.answered = self.committed = self.most = 0

    def stream(self, prompts: Sequence[str], decoding: Decoding | None = None) -> Answers:
        """Answer as the engine below does."""
        for answer in self._engine.stream(prompts, decoding):
            self.answered += 1
            self.most = max(self.most, self.answered - self.committed)
            yield answer

    def close(self) -> None:
        """Leave the engine below open."""


def measure_times(job: RationalesJob, *, after_each: Work = nothing) -> RationaleTimes:
    """Seconds of both methods, in turns, after one run of each whose texts are compared.

    Raises `MismatchError` where the texts differ.
    """
    asking = _Asking(job)
    with asking.engine:
        outputs = asking.generate()
        after_each()
        uncommitted = _compared(asking, outputs)
        after_each()
        rounds = take_turns(
            asking.works,
            rounds_of=dict.fromkeys(METHODS, range(job.repeats)),
            device=CPU,
            before_each=asking.forget,
            after_each=after_each,
        )
    import vllm  # not sooner: the engine sets its environment first

    return RationaleTimes(
        rounds=rounds,
        prompt_tokens=sum(len(output.prompt_token_ids) for output in outputs),
        new_tokens=sum(len(output.outputs[0].token_ids) for output in outputs),
        uncommitted=uncommitted,
        vllm=vllm.__version__,
        setting=_setting(job),
    )


def measure_peak(job: RationalesJob, method: Method) -> Memory:
    """Memory of the process that asks, vLLM's own left out, over one run of a method."""
    asking = _Asking(job)
    with asking.engine:
        return measure_memory(asking.works[method], CPU)


def _compared(asking: _Asking, outputs: Sequence[Any]) -> int:
    """Run the stage once, see that it stores the texts in `outputs`, and return the most that was not committed."""
    counting = _Counting(asking.engine)

    class Watched(RationaleStore):
        def append(self, attempts: Sequence[Attempt]) -> Commit:
            commit = super().append(attempts)
            counting.committed += len(attempts)
            return commit

    asking.forget()
    stored = Counter(attempt.output for attempt in asking.stage(counting, Watched).attempts().values())
    bare = Counter(output.outputs[0].text for output in outputs)
    assert counting.answered == asking.job.questions, "something was there before"
    expected = asking.job.questions * asking.job.max_tokens
    found = sum(len(output.outputs[0].token_ids) for output in outputs)
    if stored != bare or found != expected:
        raise MismatchError(
            f"bench rationales: expected {expected:,} tokens and equal texts, found {found:,} tokens, and "
            f"{(stored - bare).total():,} of {stored.total():,} texts of the stage are not those of LLM.generate"
        )
    return counting.most


def _setting(job: RationalesJob) -> Setting:
    from vllm.platforms import current_platform

    device = "cpu" if current_platform.is_cpu() else str(current_platform.get_device_name())
    return setting_on(device, job.shape)
