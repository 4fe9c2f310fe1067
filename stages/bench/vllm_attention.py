"""What stepwise attention costs in vLLM, beside the engine's own reading of the same texts.

In: a model (random and Llama-shaped, or one from a folder) and the lengths of made-up texts. Out: seconds of both round
by round, or the peak memory of one of them. vLLM runs in the process that measures, so that its memory is that
process's; `prefill` reads every text whole and answers with one token, `vllm` also records where its steps look.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from data.errors import MismatchError
from data.sets.synthetic import synthetic_questions
from stages.attention.in_vllm.engine import VllmAttention
from stages.attention.in_vllm.worker import EXTENSION
from stages.attention.tokens import Located
from stages.bench.attention import AttentionJob, Blocks, Method, Times, made_up_records
from stages.bench.measure import Memory, Work, measure_memory, nothing, rounds_of, take_turns, warmed_up
from stages.engines.contract import Decoding, EngineSetup
from stages.engines.kinds.vllm import VllmEngine
from stages.models.save import save_checkpoint
from stages.runtime.device import unless_out_of_memory
from stages.toy.random_llama import SEED, random_llama, setting_on, shape_of
from stages.toy.teacher import word_tokenizer

COMPARED_WITH: Mapping[Method, Method | None] = {"prefill": None, "vllm": "prefill"}
CPU = torch.device("cpu")
FORMULA = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.05}
"""How far the attention of a text may be from the plain formula on the engine's own queries and keys."""


def measure_times(job: AttentionJob, *, after_each: Work = nothing) -> Times:
    """Seconds of the job's methods, in turns, after one run of each.

    Raises `MismatchError` where the attention of a text is not what the formula says.
    """
    with _running(job) as (engine, records):
        works = _works(engine, records)
        found = warmed_up({method: works[method] for method in job.methods}, after_each=after_each)
        attention = VllmAttention(engine)
        attention.of(["compared"], records[:1], compare=True)
        if not attention.apart <= FORMULA[job.dtype]:
            raise MismatchError(f"bench attention: {attention.apart:.1e} from the formula, {job.dtype} explains less")
        rounds = take_turns(
            {method: works[method] for method in found},
            rounds_of=rounds_of(found, job.repeats, {}),
            device=torch.device(job.device),
            after_each=after_each,
        )
        setting = setting_on(job.device, shape_of(engine.llm.llm_engine.model_config.hf_config))
        return Times(rounds=rounds, differences={"vllm": attention.apart}, setting=setting)


def measure_peak(job: AttentionJob) -> Memory | None:
    """Memory of the job's only method with vLLM, in a process that has done nothing before."""
    (method,) = job.methods

    def measured() -> Memory:
        with _running(job) as (engine, records):
            return measure_memory(_works(engine, records)[method], torch.device(job.device))

    return unless_out_of_memory(measured)


@contextmanager
def _running(job: AttentionJob) -> Iterator[tuple[VllmEngine, list[Located]]]:
    """An engine in this very process, and the texts."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    warnings.simplefilter("ignore", FutureWarning)  # of torch's names that vLLM uses, elsewhere in its own process
    longest = max(text.tokens for text in job.texts)
    with TemporaryDirectory(prefix="molsaki-bench-") as scratch:
        folder = job.model or str(_written(job, Path(scratch), longest + 1))
        setup = EngineSetup(
            model=folder,
            revision=None,
            decoding=Decoding(max_tokens=1),
            dtype=job.dtype,
            device=job.device,
            arguments={
                "max_model_len": longest + 1,
                "tensor_parallel_size": job.tensor_parallel,
                "max_num_batched_tokens": max(job.batch_tokens, longest + 1),
                "enable_prefix_caching": False,  # what it keeps would be another memory than what is measured
            },
            extension=EXTENSION,
        )
        with VllmEngine(setup) as engine:
            vocabulary = engine.llm.llm_engine.model_config.get_vocab_size()
            yield engine, made_up_records(job.texts, vocabulary)


def _written(job: AttentionJob, folder: Path, positions: int) -> Path:
    tokenizer = word_tokenizer(synthetic_questions(500, seed=SEED, split="train"))
    model = random_llama(job.shape, positions=positions, vocabulary=len(tokenizer), device=CPU, dtype=job.dtype)
    save_checkpoint(model, tokenizer, folder)
    return folder


def _works(engine: VllmEngine, records: Sequence[Located]) -> dict[Method, Work]:
    attention = VllmAttention(engine)
    keys = [str(number) for number in range(len(records))]
    ids = [np.asarray(one.ids).tolist() for one in records]

    def prefill() -> Blocks:
        for _ in engine.read(ids, [{}] * len(ids)):
            pass
        return {}

    def vllm() -> Blocks:
        return dict(enumerate(one.words for one in attention.of(keys, records)))

    return {"prefill": prefill, "vllm": vllm}
