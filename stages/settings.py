"""The settings of every stage: what the sections of a configuration file mean.

Frozen dataclasses without behaviour, so that reading them costs no heavy import. Defaults of the method are the paper's
(after arXiv 2604.15701): alpha 0.5, beta 1.0, tau 0.1 for the teacher's layers and 0.5 for the student's.
"""

import pkgutil
from dataclasses import field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from typing_extensions import TypeAliasType

from data.settings import RationaleFields, settings
from data.steps import StepRule

Task = Literal["predict", "explain"]
"""The student's two tasks, each with a prompt of its own: the bare answer, and the rationale that ends in it."""
AlignmentName = Literal["mixture", "uniform", "one-to-one", "last"]
RouterName = Literal["mean", "paper"]
Rows = Literal["softmax", "share"]
Matching = Literal["tokens", "text"]
Divergence = Literal["forward-kl", "reverse-kl", "jensen-shannon"]
CriticalRule = Literal["numbers", "keywords", "regex"]
KeywordSource = Literal["data", "teacher"]
Dtype = Literal["float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]
AttentionEngine = Literal["transformers", "vllm"]
LimitField = Literal["max_completion_tokens", "max_tokens"]
TrackerName = Literal["tensorboard", "wandb"]
PositiveInt = Annotated[int, Ge(1)]
Scalar = str | int | float | bool | None
EngineValue = TypeAliasType("EngineValue", "Scalar | list[EngineValue] | dict[str, EngineValue]")
"""Whatever JSON can say: vLLM's arguments may be nested."""
PeftValue = Scalar | list[str | int] | dict[str, str | int | float]
"""What PEFT's configurations are made of."""
OBJECTIVES = Path(__file__).parent / "student" / "objectives"
ENGINES = Path(__file__).parent / "engines" / "kinds"
ENGINES_FIRST = ("vllm", "transformers", "openai", "ray")
"""The order in which these are named; others come behind them."""


def objective_names() -> tuple[str, ...]:
    """The presets, by the files of their folder: `fine_tune_cot.py` holds `fine-tune-cot`."""
    return _names(OBJECTIVES)


def engine_names() -> tuple[str, ...]:
    """All engines there are, by the files of their folder."""
    return tuple(sorted(_names(ENGINES), key=lambda name: (*ENGINES_FIRST, name).index(name)))


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules([str(folder)])))


if TYPE_CHECKING:
    EngineName = str
    ObjectiveName = str
else:
    EngineName = Literal[(*engine_names(), "file")]
    ObjectiveName = Literal[objective_names()] | str  # the presets, for editors; others are looked up when it is used


@settings
class TeacherSettings:
    """The model that reasons and whose attention is distilled."""

    model: str
    """Hub id, or a local folder with config, tokenizer and safetensors."""
    revision: str | None = None
    """Commit, branch or tag on the hub; it is resolved to a commit before anything is computed."""
    dtype: Dtype = "bfloat16"
    """Number format of weights and activations while the attention is computed; part of the fingerprint."""
    device: Device = "auto"
    """Where the forward pass runs."""
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None
    """Spread a teacher too large for one device over all there are, as accelerate does, instead of `device`."""
    quantization: dict[str, str | int | float | bool] = field(default_factory=dict)
    """Keys of transformers' `quantization_config` for the attention's pass, such as quant_method and load_in_8bit; part
    of the fingerprint. A checkpoint that is quantised already needs none."""
    trust_remote_code: bool = False
    """Run code that comes with the model, in this process and with your rights: read it first, and name a commit in
    `revision`. For models that need it; part of the fingerprint then."""


@settings
class RationaleSettings:
    """Stage one, first half: the teacher writes rationales."""

    engine: EngineName = "vllm"
    """`vllm`, `transformers` (same contract, slower, runs everywhere), `openai` (a server that is asked by its address,
    such as `vllm serve`), `ray` (vLLM on a Ray cluster) or `file` (existing rationales)."""
    path: str | None = None
    """`engine: file`: JSON Lines with the question's id and its rationale."""
    fields: RationaleFields = RationaleFields()
    """`engine: file`: which fields of the file hold the id, the rationale and, if the text does not state it, the
    answer."""
    shots: Annotated[int, Ge(0)] = 4
    """Number of worked examples shown before each question."""
    as_student: bool = False
    """Ask as students are asked, by `explain: ` and the question, instead of by worked examples: for a mentor, which
    is a student of an earlier run."""
    chat: bool = False
    """Send the prompt through the model's chat template."""
    template_arguments: dict[str, EngineValue] = field(default_factory=dict)
    """`chat`: variables of the template, such as `enable_thinking: false`."""
    template_date: date = date(2026, 1, 1)
    """`chat`: the day that a template writes which asks for today's, so that prompts are the same tomorrow."""
    temperature: Annotated[float, Ge(0)] | None = 0.0
    """0 is greedy. `null`, here and for `top_p` and `seed`, leaves it out of what an `author` is sent; then its server
    decides. Reasoning models refuse these fields."""
    top_p: Annotated[float, Gt(0), Le(1)] | None = 1.0
    """Nucleus sampling's share of probability."""
    seed: int | None = 0
    """Seed of sampling."""
    samples: PositiveInt = 1
    """Rationales to ask for of each question, each with a seed of its own; all that are right and differ are kept. More
    than 1 needs a temperature above 0. More of them later ask for the new ones only."""
    max_tokens: PositiveInt = 256
    """Longest rationale, in tokens."""
    second_phase: bool = True
    """Ask again, with the gold answer shown, what the teacher got wrong."""
    keywords: bool = False
    """Ask the teacher as well which words of a question and its rationale are key; see `attention.keyword_sources`."""
    piece: PositiveInt = 1024
    """Rationales per commit: so many are asked for again after a crash, and those that came in while the last piece was
    being written. Larger pieces make fewer files."""
    commit_minutes: Annotated[float, Gt(0)] = 10.0
    """Commit what is there once so many minutes have passed, although the piece is not full."""
    engine_arguments: dict[str, EngineValue] = field(default_factory=dict)
    """Handed to the engine as they are, nested ones too, e.g. `max_model_len: 4096`; with `openai` they say how the
    server runs the teacher, and go to an `author` with every request."""
    restarts: Annotated[int, Ge(0)] = 2
    """`engine: vllm` and `ray`: so often an engine is started again when it dies, for what is not answered yet."""
    server: str | None = None
    """`engine: openai`: address, e.g. http://node7:8000/v1; unset is OPENAI_BASE_URL. Its key is read from
    OPENAI_API_KEY, and from nowhere else."""
    served_model: str | None = None
    """`engine: openai`: what the server calls `teacher.model`, where that is another name."""
    author: str | None = None
    """`engine: openai`: a served model that writes the rationales instead of `teacher.model`, whose attention is
    recorded all the same. It gets text, with `chat` messages, and its rationales have a store of their own."""
    server_limit_field: LimitField = "max_completion_tokens"
    """`author` with `chat`: the name by which the server is told `rationales.max_tokens`. Some know only the older one,
    `max_tokens`: they refuse the newer (Mistral's) or read over it (Ollama)."""
    server_requests: PositiveInt = 64
    """`engine: openai`: requests at a time."""
    request_seconds: Annotated[float, Gt(0)] = 300.0
    """`engine: openai`: how long one request may take."""
    patience_seconds: Annotated[float, Gt(0)] = 900.0
    """`engine: openai`: how long a request that the server did not answer is tried again before the stage fails."""
    ray_address: str | None = None
    """`engine: ray`: a cluster that is running, such as `10.0.0.1:6379` or `auto`; unset is RAY_ADDRESS, else Ray is
    started on this machine."""
    ray_replicas: PositiveInt = 1
    """`engine: ray`: vLLM engines side by side, each with the whole teacher; fewer where there is no room for more."""
    ray_batch: PositiveInt = 32
    """`engine: ray`: prompts handed to an engine at a time; their answers come together."""


@settings
class AttentionSettings:
    """Stage one, second half: what to pool the teacher's attention over, and how."""

    engine: AttentionEngine = "transformers"
    """Who runs the teacher. `vllm` reads the texts by the engine that writes rationales, with the same weights,
    kernels, quantisation and spreading over GPUs; `molsaki run CONFIG` then starts it once for both."""
    engine_arguments: dict[str, EngineValue] = field(default_factory=dict)
    """`engine: vllm`: handed on to `vllm.LLM`; if empty, those of `rationales.engine_arguments` where vLLM writes the
    rationales as well."""
    steps: StepRule = "periods"
    """Where the text is cut into reasoning steps."""
    critical: CriticalRule = "numbers"
    """Which words are critical."""
    keywords: tuple[str, ...] = ()
    """`critical: keywords`: words to look for in every text, beside those of `keyword_sources`."""
    keyword_sources: tuple[KeywordSource, ...] = ("data", "teacher")
    """`critical: keywords`: who else names words: `data`, the data set (a concept, the choices, a term), and `teacher`,
    the teacher where `rationales.keywords` asks it."""
    pattern: str | None = None
    """`critical: regex`: the regular expression whose matches are the critical words."""
    keep_bits: Annotated[int, Ge(1), Le(10)] | None = None
    """Round the stored attention to so many of float16's 10 bits of mantissa, for a smaller store; unset is float16 as
    it is. `molsaki cache show` says what it changed."""
    begin_token: bool = True
    """Put the teacher's begin token, or its end token, in front of a text where its tokenizer puts none there. The
    first token of a text draws attention whatever it says; a number that opens one is not to be looked at for that."""
    max_length: PositiveInt = 2048
    """Records with more tokens are dropped and counted."""
    batch_tokens: PositiveInt = 16384
    """`engine: transformers`: tokens (padding included) in one forward pass."""
    piece: PositiveInt = 4096
    """Records per commit, 4,096 at most. Larger pieces make fewer files."""
    commit_minutes: Annotated[float, Gt(0)] = 10.0
    """Commit what is there once so many minutes have passed: at most this much work is repeated after a crash."""


@settings
class SoftLabelSettings:
    """Stage one, for objectives with soft labels: what else the teacher could have written at each token."""

    layout: Literal["auto", "top", "hidden", "sampled"] = "auto"
    """What is stored of each distribution. `top`: the likeliest tokens, and the sums over all; `hidden`: the teacher's
    last hidden state, and its head once, from which all follows; `sampled`: tokens drawn from it. `auto` is `top` at
    temperature 1, where these hold nearly all of the mass, and `hidden` at others, where they do not."""
    k: Annotated[int, Ge(1), Le(65535)] = 64
    """`top`: how many tokens; `sampled`: how many draws."""
    context: Literal["student", "plain"] = "student"
    """What the teacher reads in front of the rationale: the prompt that the student has, or the question alone, as
    where its attention is recorded, and then from the same pass where both are missing."""
    begin_token: bool | None = None
    """`context: plain`: as `attention.begin_token`, and if unset what that says."""
    seed: int = 0
    """`sampled`: seed of the draws."""
    max_length: PositiveInt = 2048
    """Records with more tokens are dropped and counted."""
    batch_tokens: PositiveInt = 16384
    """Tokens (padding included) in one forward pass."""
    piece: PositiveInt = 1024
    """Records per commit, 4,096 at most."""
    commit_minutes: Annotated[float, Gt(0)] = 10.0
    """Commit what is there once so many minutes have passed: at most this much work is repeated after a crash."""


@settings
class StudentSettings:
    """The model that learns."""

    model: str
    """Hub id or local folder."""
    revision: str | None = None
    """Commit, branch or tag on the hub."""
    initialise: Literal["pretrained", "random"] = "pretrained"
    """`random` takes the model's configuration and tokenizer only, with fresh weights from each seed."""
    layers: PositiveInt | None = None
    """Keep only so many of the model's first decoder layers, with its embeddings, final norm and head; unset is all."""
    max_length: PositiveInt = 1024
    """Training texts with more tokens are left out and counted."""
    peft: dict[str, PeftValue] = field(default_factory=dict)
    """Learn through an adapter of PEFT: `peft_type: LORA` and the keys of its configuration, such as r, lora_alpha and
    `target_modules: all-linear`. It is merged in the end, and saved beside the student as well."""


@settings
class SinglePair:
    """One layer of the teacher and one of the student, counted from 1."""

    single: tuple[PositiveInt, PositiveInt]
    """`[teacher, student]`."""


@settings
class AlignmentSettings:
    """Which layers meet in the attention loss, and what of them is compared."""

    alignment: AlignmentName | SinglePair = "mixture"
    """Which layers meet in the attention loss. `mixture` weighs all of both models; `uniform` (TinyBERT),
    `one-to-one` (MobileBERT) and `last` (MiniLM) pair them, as does {single: [teacher layer, student layer]}."""
    tau_teacher: Annotated[float, Gt(0)] = 0.1
    """Temperature, where alignment is mixture, of the teacher's layer weights (Eq. 4)."""
    router: RouterName = "mean"
    """Where alignment is mixture: how the student's layers are summed up before they are weighed. `mean` takes the mean
    over tokens and learns at a rate of its own; `paper` is Eq. 5 to the letter, which on real weights keeps a single
    layer."""
    router_learning_rate: Annotated[float, Gt(0)] = 0.1
    """`router: mean`: by how much a step of the optimizer moves a layer's score at most (as long as value states are of
    size 1), whatever the student's size, the length of its texts and its own learning rate."""
    tau_student: Annotated[float, Gt(0)] = 0.5
    """Temperature, where alignment is mixture, of the student's layer weights (Eq. 5)."""
    rows: Rows = "share"
    """What the attention loss compares of a step's attention to the critical words: each word's `share` of the sum, or
    their `softmax`, the letter of Eq. 6, which on real weights is nearly even whatever the teacher looks at."""


@settings
class WeightSettings:
    """How much a term counts."""

    weight: Annotated[float, Ge(0)] = 1.0
    """What the term is multiplied by before it is added: β of Eq. 7."""


@settings
class AttentionTerm(AlignmentSettings, WeightSettings):
    """The student looks where the teacher looked (L_att, Eq. 6); needs the task `explain`."""


@settings
class SoftLabelTerm:
    """The student learns the teacher's distribution at each token of the rationale; needs the task `explain`."""

    weight: Annotated[float, Ge(0), Le(1)] = 0.5
    """λ: the explanation loss becomes (1 − λ) cross-entropy + λ divergence."""
    match: Matching = "tokens"
    """`tokens` compares distributions over one vocabulary, which teacher and student have to share; `text` the
    log-probabilities of the pieces of text between borders that tokens of both have in common, for any tokenizers."""
    divergence: Divergence = "forward-kl"
    """`match: tokens`: KL(teacher ‖ student), `reverse-kl`, or `jensen-shannon`."""
    mixture: Annotated[float, Gt(0), Lt(1)] = 0.5
    """`jensen-shannon`: share of the teacher in what both are compared with, GKD's β."""
    temperature: Annotated[float, Gt(0)] = 1.0
    """`match: tokens`: what both sides' logits are divided by. Likeliest tokens are exact at 1 and 2."""
    squared: bool = True
    """Multiply by the square of the temperature, which keeps gradients of one size (Hinton et al. 2015)."""


@settings
class MutualInformationTerm:
    """The two tasks are drawn to each other's words (L_mi of MMI); needs both."""

    weight: Annotated[float, Ge(0)] = 0.1
    """What the term is multiplied by before it is added."""


@settings
class TermSettings:
    """What a student is trained for beside its tasks; a term that is named takes the place of the preset's."""

    attention: AttentionTerm | None = None
    """Where the teacher looked: L_att (Eq. 6)."""
    soft_labels: SoftLabelTerm | None = None
    """What else the teacher could have written, from the store of soft labels."""
    mutual_information: MutualInformationTerm | None = None
    """L_mi of MMI."""


@settings
class PresetSettings:
    """A published method, and the two weights that most of them have."""

    name: ObjectiveName = "molsaki"
    """`answer-only`, `fine-tune-cot`, `dss` (answer and rationale as two tasks), `mmi` (dss whose tasks are drawn to
    each other), `molsaki` (dss and the attention loss, Eq. 7), `molsaki-cot` (fine-tune-cot and the attention loss),
    `mentor-kd` (fine-tune-cot and soft labels), `cascod` (the answer after its rationale, weighed apart), or an
    objective of an installed package."""
    alpha: Annotated[float, Ge(0), Le(1)] | None = None
    """Share of the prediction loss against the explanation loss, where both tasks are learned; of cascod the share of
    the answer. Unset is the source's: 0.5, of cascod 0.1."""
    beta: Annotated[float, Ge(0)] | None = None
    """Weight of what the preset adds to its tasks; unset is its source's: 1.0 for molsaki, 0.1 for mmi, 0.3 for
    mentor-kd, whose λ it is."""


@settings
class ObjectiveSettings(AlignmentSettings, PresetSettings):
    """What the student is trained for: a preset, and what is to be different from it."""

    tasks: Annotated[tuple[Task, ...], MinLen(1)] | None = None
    """What the student learns to write; unset is the preset's tasks."""
    terms: TermSettings = TermSettings()
    """Terms beside the tasks, by name, with values of their own; those of the preset stay if none is named alike."""
    options: dict[str, EngineValue] = field(default_factory=dict)
    """Whatever an objective of an installed package lets be set."""


@settings
class EarlyStoppingSettings:
    """When training ends before `training.epochs` are over."""

    patience: PositiveInt = 2
    """So many looks at the dev questions in a row without a better accuracy, and training ends."""
    every_epochs: PositiveInt = 1
    """Epochs from one look to the next."""


@settings
class TrainingSettings:
    """How the student is trained; one student for every seed."""

    seeds: Annotated[tuple[int, ...], MinLen(1)] = (0,)
    """One student is trained per seed; weights, order of records and dropout follow from it."""
    epochs: Annotated[float, Gt(0)] = 5.0
    """Passes over the training records."""
    batch_size: PositiveInt = 16
    """Records in one forward pass, those of all processes together: each process takes its share."""
    gradient_accumulation: PositiveInt = 1
    """Batches whose gradients are added before the weights change, with less memory than one large batch takes: 2 times
    batch_size 4 is the training of batch_size 8, dropout's random numbers aside."""
    processes: PositiveInt = 1
    """Processes that train a student together, one a GPU; each takes its share of every batch, so that the training is
    the same for any number of them, dropout's random numbers aside."""
    learning_rate: Annotated[float, Gt(0)] = 5e-5
    """Peak learning rate of AdamW."""
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """Learning-rate schedule."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.05
    """Share of the steps spent raising the learning rate."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: Annotated[float, Ge(0)] = 1.0
    """Gradients are clipped to this norm."""
    dtype: Dtype = "float32"
    """float32, or bfloat16/float16 by automatic mixed precision."""
    device: Device = "auto"
    """Where training runs."""
    gradient_checkpointing: bool = False
    """Compute layers again in the backward pass instead of keeping their activations: less memory, more time."""
    loader_workers: Annotated[int, Ge(0)] | None = None
    """Processes that put batches together beside training, from the same memory map of targets; unset is 2 where a GPU
    trains and none on a CPU. What is trained does not depend on it."""
    checkpoint_steps: PositiveInt = 500
    """Optimizer steps between checkpoints."""
    log_steps: PositiveInt = 10
    """Optimizer steps whose mean losses and layer weights are one entry of the log, in `training.json`."""
    early_stopping: EarlyStoppingSettings | None = None
    """Let the student answer the questions of `data.dev` after each epoch, end where it gets no better, and keep the
    best; {} takes the defaults. Unset trains all epochs and keeps the last."""
    report_to: tuple[TrackerName, ...] = ()
    """Follow all losses and layer weights in `tensorboard` or `wandb`; they write below `logs/` in the run's folder."""


@settings
class ReferenceSettings:
    """A file of rationales that students are measured by and never learn from."""

    path: str
    """JSON Lines with the question's id and its rationale; those that reach the gold answer count."""
    fields: RationaleFields = RationaleFields()
    """Which fields of the file hold the id, the rationale and, if the text does not state it, the answer."""


@settings
class EvaluationSettings:
    """How the trained students are measured."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """What generates the answers."""
    prompts: Annotated[tuple[Task, ...], MinLen(1)] = ("predict", "explain")
    """`predict` answers at once, `explain` writes the rationale first."""
    max_new_tokens: PositiveInt = 256
    """Longest output, in tokens."""
    batch_size: PositiveInt = 64
    """Questions generated together by `transformers`."""
    engine_arguments: dict[str, EngineValue] = field(default_factory=dict)
    """Handed to vLLM as they are."""
    likelihood: bool = True
    """Also measure the log-probability that a student gives each question's gold answer after `predict`, and after
    `explain` its reference rationale, where there is one: a finer measure than right and wrong."""
    references: ReferenceSettings | None = None
    """Where reference rationales are: a file with `path` and `fields`. Unset is the file of `rationales.engine: file`,
    for questions of the same data sets that are not trained on; elsewhere the solutions that a data set has itself."""
