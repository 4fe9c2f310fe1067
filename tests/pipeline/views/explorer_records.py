"""Records for tests of the explorer: ordinary ones, ones that would like to be markup, and students' looks at them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cache.keys import record_key
from cache.reader import AttentionStore
from cache.spaces import Space
from cache.student_attention import StudentLook
from cache.writer import AttentionBlock, AttentionWriter
from data.marking import Keywords, mark
from data.records import Marked
from pipeline.views.choose import Chosen
from pipeline.views.explore import Explored

FIGS = mark("Ann has 3 figs and 8 pens. She finds 2 figs. How many figs?", "3 + 2 = 5. The answer is 5.")
PENS = mark("Tom had 10 pens. He lost 4. How many are left?", "He had 10. 10 - 4 = 6. The answer is 6.")
ASTRAL = mark("🦊🦊 saw 7 birds. 𝒳 is 2. Which?", "𝒳 is 2. 7 𝒳.")
HOSTILE = tuple(
    mark(question, f"{rationale} The answer is 9.")
    for question, rationale in (
        ("</script><script>alert(1)</script> 4 apples.", "<img src=x onerror=alert(2)> 9."),
        ('" onmouseover="alert(3) 5 figs.', "javascript:alert(4) &lt;b&gt; 9."),
        ("<!--<script> {{7*7}} {% raw %} ${1} 6.", "https://example.org/a.png \u2028 \u202e 9."),
        ("</style><style>*{display:none}</style> 7.", "]]> <svg onload=alert(5)> 9."),
    )
)
HOSTILE_WORDS = mark("Is <b>bold</b> a tag?", "<b>bold</b> is.", critical=Keywords(("<b>bold</b>",)))
RECORDS = (FIGS, PENS, ASTRAL, *HOSTILE, HOSTILE_WORDS)
LAYERS, STUDENT_LAYERS = 5, 3


def causal_attention(marked: Marked, layers: int, seed: int) -> np.ndarray:
    """Float16 from a seed, and zero where a word comes after the step."""
    source = np.random.default_rng(seed)
    attention = source.gamma(0.5, size=(layers, len(marked.step_spans), len(marked.critical_spans)))
    for step, (_, end) in enumerate(marked.step_spans):
        for word, (start, _) in enumerate(marked.critical_spans):
            if start >= end:
                attention[:, step, word] = 0
    return attention.astype(np.float16)


def store_of(folder: Path, records: Sequence[Marked] = RECORDS, *, model: str = "teacher@1") -> AttentionStore:
    """A space that holds `records`."""
    space = Space.open_or_create(folder, "attention", "tiny", {"schema": 1, "model": model})
    blocks = [
        AttentionBlock(
            key=record_key(marked),
            marked=marked,
            attention=causal_attention(marked, LAYERS, number),
            step_tokens=np.ones(len(marked.step_spans), dtype=np.int32),
        )
        for number, marked in enumerate(records)
    ]
    AttentionWriter(space).append(blocks)
    return AttentionStore.open(space.path)


def student_looks_of(records: Sequence[Marked], seed: int, *, learned: bool = True) -> list[StudentLook]:
    """What a student saw before and after training."""
    return [
        StudentLook(
            key=record_key(marked),
            when=when,
            attention=causal_attention(marked, STUDENT_LAYERS, 100 * seed + 10 * at + number),
            layer_weights=np.array([0.5, 0.25, 0.25], dtype=np.float32) if learned else None,
        )
        for number, marked in enumerate(records)
        for at, when in enumerate(("before", "after"))
    ]


def explored(folder: Path, records: Sequence[Marked] = RECORDS, *, students: Sequence[int] = (0, 1)) -> Explored:
    """A store of `records`, and students who were asked about the first two."""
    attention = store_of(folder, records)
    seen = {
        seed: {
            key: {look.when: look for look in looks if look.key == key}
            for key in map(record_key, records[:2])
        }
        for seed in students
        for looks in [student_looks_of(records[:2], seed)]
    }  # fmt: skip
    chosen = Chosen(attention=attention, keys=tuple(map(record_key, records)))
    return Explored(chosen=chosen, runs={chosen.name: seen} if seen else {})
