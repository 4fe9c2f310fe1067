"""Divergences of soft labels: values worked out by hand, a slow reference in float64, bounds, gradients."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from stages.soft_labels.divergences import (
    LEAST_TAIL,
    LOWEST,
    Divergence,
    FullRows,
    LikeliestRows,
    Rows,
    SampledRows,
    soft_loss,
    with_cross_entropy,
)

KINDS = ("forward-kl", "reverse-kl", "jensen-shannon")
WAYS = [
    Divergence(kind=kind, temperature=temperature, beta=0.3, scaled=scaled)
    for kind in KINDS
    for temperature in (1.0, 2.0)
    for scaled in (True, False)
]


def logs(*shares: float) -> list[float]:
    return [math.log(share) for share in shares]


def random_logits(rows: int, vocabulary: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)).to(dtype)


def likeliest(teacher: torch.Tensor, kept: int, temperature: float = 1.0) -> LikeliestRows:
    """The rows that are kept of a teacher's logits, without rounding."""
    relative = teacher - teacher.amax(dim=1, keepdim=True)
    logits, tokens = relative.topk(kept, dim=1)
    return LikeliestRows(tokens_NK=tokens, logits_NK=logits, log_norm_N=torch.logsumexp(relative / temperature, dim=1))


def distribution(logits: Sequence[float], temperature: float) -> list[float]:
    weights = [math.exp((one - max(logits)) / temperature) for one in logits]
    return [weight / sum(weights) for weight in weights]


def by_loop(p: Sequence[float], q: Sequence[float], way: Divergence) -> float:
    """The divergence of one distribution from another, term by term."""

    def kl(one: Sequence[float], other: Sequence[float]) -> float:
        return sum(a * math.log(a / b) for a, b in zip(one, other, strict=True) if a > 0)

    m = [way.beta * a + (1 - way.beta) * b for a, b in zip(p, q, strict=True)]
    found = {
        "forward-kl": lambda: kl(p, q),
        "reverse-kl": lambda: kl(q, p),
        "jensen-shannon": lambda: way.beta * kl(p, m) + (1 - way.beta) * kl(q, m),
    }[way.kind]()
    return found * way.temperature**2 if way.scaled else found


def in_buckets(shares: Sequence[float], tokens: Sequence[int]) -> list[float]:
    rest = [share for token, share in enumerate(shares) if token not in tokens]
    return [shares[token] for token in tokens] + ([sum(rest)] if rest else [])


# By hand


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # p = (1/2, 1/4 | 1/4), q = (1/4, 1/4 | 1/2); the tail is the last two of four tokens.
        ("forward-kl", 0.5 * math.log(2) + 0.25 * math.log(0.5)),
        ("reverse-kl", 0.25 * math.log(0.5) + 0.5 * math.log(2)),
        # m = (3/8, 1/4, 3/8) at β = 1/2.
        ("jensen-shannon", 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3)),
    ],
)
def test_two_kept_tokens_and_a_tail_by_hand(kind: str, expected: float):
    student = torch.tensor([logs(0.25, 0.25, 0.1, 0.4)])
    rows = LikeliestRows(
        tokens_NK=torch.tensor([[0, 1]]),
        logits_NK=torch.tensor([logs(1, 0.5)]),
        log_norm_N=torch.tensor([math.log(2)]),
    )
    found = soft_loss(student, rows, Divergence(kind=kind))
    torch.testing.assert_close(found, torch.tensor([expected]), atol=1e-6, rtol=0)


def test_beta_weighs_the_teacher_by_hand():
    # p = (3/4, 1/4), q = (1/4, 3/4), β = 1/4: m = (3/8, 5/8).
    teacher, student = torch.tensor([logs(0.75, 0.25)]), torch.tensor([logs(0.25, 0.75)])
    of_teacher = 0.75 * math.log(2) + 0.25 * math.log(2 / 5)
    of_student = 0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)
    way = Divergence(kind="jensen-shannon", beta=0.25)
    found = soft_loss(student, FullRows(logits_NW=teacher), way)
    torch.testing.assert_close(found, torch.tensor([0.25 * of_teacher + 0.75 * of_student]))


def test_temperature_and_its_square_by_hand():
    # At T = 2 logits of (2 ln 3, 0) are (3/4, 1/4), and those of (0, 0) stay (1/2, 1/2).
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    for scaled, factor in ((False, 1), (True, 4)):
        way = Divergence(temperature=2.0, scaled=scaled)
        for rows in (FullRows(logits_NW=teacher), likeliest(teacher, 2, 2.0), likeliest(teacher, 1, 2.0)):
            torch.testing.assert_close(soft_loss(student, rows, way), torch.tensor([factor * expected]))


def test_sampled_rows_by_hand():
    student = torch.tensor([logs(0.5, 0.25, 0.25)])
    rows = SampledRows(tokens_NK=torch.tensor([[2, 0, 0]]), counts_NK=torch.tensor([[3, 1, 0]]))
    expected = -0.75 * math.log(0.25) - 0.25 * math.log(0.5)
    torch.testing.assert_close(soft_loss(student, rows, Divergence()), torch.tensor([expected]))


def test_the_same_distribution_gives_zero():
    teacher = random_logits(5, 12)
    for way in WAYS:
        for rows in (FullRows(logits_NW=teacher), *(likeliest(teacher, kept, way.temperature) for kept in (1, 5, 12))):
            found = soft_loss(teacher + 3, rows, way)
            torch.testing.assert_close(found, torch.zeros(5), atol=2 * LEAST_TAIL, rtol=0)


# Against others


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("kept", [1, 4, 11, 12])
def test_equals_a_plain_loop_in_float64(way: Divergence, kept: int):
    teacher, student = random_logits(9, 12, 1, torch.float64) / 4, random_logits(9, 12, 2)
    rows = likeliest(teacher, kept, way.temperature)
    for dtype, close in ((torch.float64, 1e-9), (torch.float32, 2e-4)):
        found = soft_loss(student.to(dtype), rows, way)
        for row in range(9):
            tokens = rows.tokens_NK[row].tolist()
            p, q = (distribution(side[row].tolist(), way.temperature) for side in (teacher, student))
            assert kept == 12 or in_buckets(p, tokens)[-1] > LEAST_TAIL
            p, q = in_buckets(p, tokens), in_buckets(q, tokens)
            assert float(found[row]) == pytest.approx(by_loop(p, q, way), abs=close, rel=close)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tail_that_is_not_known_counts_as_the_least_by_hand(kind: str):
    """The teacher's other tokens share nothing; the student gives them 1/10, or as little as they have."""
    rows = LikeliestRows(tokens_NK=torch.tensor([[0]]), logits_NK=torch.tensor([[0.0]]), log_norm_N=torch.tensor([0.0]))
    found = soft_loss(torch.tensor([logs(0.9, 0.1)]), rows, Divergence(kind=kind))
    m = 0.05 + LEAST_TAIL / 2
    expected = {
        "forward-kl": -math.log(0.9),
        "reverse-kl": 0.9 * math.log(0.9) + 0.1 * math.log(0.1 / LEAST_TAIL),
        "jensen-shannon": (-math.log(0.95) + 0.9 * math.log(0.9 / 0.95) + 0.1 * math.log(0.1 / m)) / 2,
    }
    torch.testing.assert_close(found, torch.tensor([expected[kind]]))
    alike = soft_loss(torch.tensor([[0.0, -30.0]]), rows, Divergence(kind=kind))
    assert abs(float(alike)) < LEAST_TAIL


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_all_tokens_kept_is_the_divergence_of_full_logits(way: Divergence):
    teacher, student = random_logits(20, 300, 1), random_logits(20, 300, 2)
    full = soft_loss(student, FullRows(logits_NW=teacher), way)
    kept = soft_loss(student, likeliest(teacher, 300, way.temperature), way)
    torch.testing.assert_close(kept, full, atol=1e-5, rtol=1e-6)
    for row in range(3):
        p, q = (distribution(side[row].tolist(), way.temperature) for side in (teacher, student))
        assert float(full[row]) == pytest.approx(by_loop(p, q, way), abs=1e-5, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.sampled_from(WAYS), st.floats(0.1, 10), st.floats(0.1, 10))
def test_fewer_tokens_never_give_more_than_all(seed: int, vocabulary: int, way: Divergence, sharp: float, other: float):
    teacher = sharp * random_logits(3, vocabulary, seed, torch.float64)
    student = other * random_logits(3, vocabulary, seed + 1, torch.float64)
    full = soft_loss(student, FullRows(logits_NW=teacher), way)
    before = torch.zeros(3, dtype=torch.float64)
    for kept in range(1, vocabulary + 1):
        found = soft_loss(student, likeliest(teacher, kept, way.temperature), way)
        assert (found <= full + 1e-9).all(), "the data processing inequality"
        if way.kind == "forward-kl":
            assert (found >= before - 1e-9).all(), "of more tokens more is known"
        before = found


def test_limits_of_beta_are_the_two_divergences():
    teacher, student = random_logits(5, 8, 1, torch.float64) / 4, random_logits(5, 8, 2, torch.float64) / 4
    rows, least = FullRows(logits_NW=teacher), 1e-9
    forward = soft_loss(student, rows, Divergence(kind="jensen-shannon", beta=least)) / least
    torch.testing.assert_close(forward, soft_loss(student, rows, Divergence()), atol=1e-4, rtol=1e-4)
    least = 1e-6
    reverse = soft_loss(student, rows, Divergence(kind="jensen-shannon", beta=1 - least)) / least
    torch.testing.assert_close(reverse, soft_loss(student, rows, Divergence(kind="reverse-kl")), atol=1e-3, rtol=1e-3)


def test_sampling_many_times_comes_near_the_full_cross_entropy_and_its_expectation_is_it():
    """Over all rows of two draws from three tokens, each as likely as it is."""
    teacher, student = random_logits(1, 3, 1, torch.float64) / 4, random_logits(1, 3, 2, torch.float64)
    p = torch.softmax(teacher, dim=1)[0]
    expected = -(p * torch.log_softmax(student, dim=1)[0]).sum()
    total = torch.zeros((), dtype=torch.float64)
    for first in range(3):
        for second in range(3):
            rows = SampledRows(tokens_NK=torch.tensor([[first, second]]), counts_NK=torch.tensor([[1, 1]]))
            total = total + p[first] * p[second] * soft_loss(student, rows, Divergence())[0]
    torch.testing.assert_close(total, expected)
    counts = np.random.default_rng(0).multinomial(60_000, p.numpy())
    rows = SampledRows(tokens_NK=torch.arange(3)[None], counts_NK=torch.from_numpy(counts)[None])
    torch.testing.assert_close(soft_loss(student, rows, Divergence())[0], expected, atol=0.05, rtol=0)


# With the cross-entropy


def every_kind_of_rows(teacher: torch.Tensor, temperature: float) -> Iterator[tuple[Rows, tuple[str, ...]]]:
    yield FullRows(logits_NW=teacher), KINDS
    yield likeliest(teacher, 3, temperature), KINDS
    yield likeliest(teacher, teacher.shape[1], temperature), KINDS
    if temperature == 1:
        drawn = torch.tensor([[1, 0, 0], [2, 4, 1]])
        yield SampledRows(tokens_NK=drawn, counts_NK=torch.tensor([[5, 0, 0], [2, 1, 1]])), ("forward-kl",)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_cross_entropy_beside_is_that_of_torch(temperature: float):
    teacher, student, wanted = random_logits(2, 6, 1), random_logits(2, 6, 2), torch.tensor([5, 0])
    for rows, kinds in every_kind_of_rows(teacher, temperature):
        for kind in kinds:
            way = Divergence(kind=kind, temperature=temperature)
            entropy, soft = with_cross_entropy(student, wanted, rows, way)
            torch.testing.assert_close(
                entropy, torch.nn.functional.cross_entropy(student, wanted, reduction="none"), atol=1e-6, rtol=1e-6
            )
            torch.testing.assert_close(soft, soft_loss(student, rows, way), atol=0, rtol=0)


class CountingNormalisers(TorchFunctionMode):
    """Counts normalisers over so many logits: torch's, and the exponentials of `log_sum`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.count = width, 0

    def __torch_function__(self, function: Callable, types, args=(), kwargs=None):
        if function in (torch.logsumexp, torch.Tensor.exp_) and args[0].shape[1] == self.width:
            self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("temperature", "passes"), [(1.0, 1), (2.0, 2)])
def test_a_temperature_takes_one_pass_over_the_vocabulary(temperature: float, passes: int):
    teacher, student = random_logits(2, 6, 1), random_logits(2, 6, 2).requires_grad_()
    for rows, _ in every_kind_of_rows(teacher, temperature):
        if isinstance(rows, LikeliestRows) and rows.tokens_NK.shape[1] == 6:
            continue  # kept tokens are as many as all: their sum counts as well
        with CountingNormalisers(6) as counting:
            with_cross_entropy(student, torch.tensor([5, 0]), rows, Divergence(temperature=temperature))
        assert counting.count == passes


# Gradients


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_gradients_are_those_of_finite_differences(way: Divergence):
    teacher, wanted = random_logits(2, 6, 1, torch.float64) / 3, torch.tensor([5, 0])
    student = (random_logits(2, 6, 2, torch.float64) / 3).requires_grad_()
    for rows, kinds in every_kind_of_rows(teacher, way.temperature):
        if way.kind in kinds:
            assert torch.autograd.gradcheck(lambda s, rows=rows: with_cross_entropy(s, wanted, rows, way), student)


def test_gradients_of_a_tail_that_is_tiny_in_float32_are_those_in_float64():
    """The student gives its tail 3e-10, the teacher 1/2: of 1 − Σ q nothing would be left in float32."""
    student = torch.tensor([[25.0, 24.0, 3.0, 2.0]])
    rows = LikeliestRows(
        tokens_NK=torch.tensor([[0, 1]]), logits_NK=torch.tensor([logs(1, 1)]), log_norm_N=torch.tensor([math.log(4)])
    )
    for kind in KINDS:
        pairs = []
        for one in (student, student.double()):
            one = one.clone().requires_grad_()
            loss = soft_loss(one, rows, Divergence(kind=kind)).sum()
            pairs.append((loss.detach().double(), torch.autograd.grad(loss, one)[0].double()))
        (loss, gradient), (exact_loss, exact) = pairs
        torch.testing.assert_close(loss, exact_loss, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradient, exact, atol=1e-6, rtol=1e-5)
        assert kind != "forward-kl" or gradient[0, 2] < -0.1, "the tail is pulled up"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_losses_and_gradients_are_finite_at_the_borders(kind: str, temperature: float):
    way = Divergence(kind=kind, temperature=temperature, scaled=False)
    low, inf = LOWEST, math.inf
    teachers = [
        [0.0, low, low, low],  # clipped, and a tail of 0
        [0.0, 0.0, 0.0, 0.0],
        [0.0, -inf, -inf, -inf],
    ]
    students = [
        [0.0, 0.0, 0.0, 0.0],
        [1000.0, 0.0, 0.0, -1000.0],  # shares that underflow, kept and in the tail
        [-1000.0, 1000.0, 0.0, 0.0],
        [0.0, -inf, -inf, -inf],
        [-inf, -inf, 0.0, 0.0],
        [3e38, -3e38, 0.0, 0.0],
    ]
    for teacher in teachers:
        whole = torch.tensor([teacher])
        clipped = whole.clamp(min=low)
        for row in students:
            for rows in (
                *(likeliest(clipped, kept, temperature) for kept in (1, 2, 4)),
                FullRows(logits_NW=whole),
                FullRows(logits_NW=clipped.half()),
            ):
                student = torch.tensor([row], requires_grad=True)
                loss = soft_loss(student, rows, way)
                (gradient,) = torch.autograd.grad(loss.sum(), student)
                assert loss.isfinite().all() and loss > -1e-5, (teacher, row, rows)
                assert gradient.isfinite().all(), (teacher, row, rows)


def test_rows_in_float16_are_finite_and_near():
    teacher, student = random_logits(50, 400, 1), random_logits(50, 400, 2)
    for way in WAYS:
        exact = likeliest(teacher, 32, way.temperature)
        rows = LikeliestRows(tokens_NK=exact.tokens_NK, logits_NK=exact.logits_NK.half(), log_norm_N=exact.log_norm_N)
        torch.testing.assert_close(soft_loss(student, rows, way), soft_loss(student, exact, way), atol=5e-3, rtol=2e-3)


def test_a_student_in_bfloat16_is_computed_in_float32():
    teacher, student = random_logits(4, 9, 1), random_logits(4, 9, 2).bfloat16()
    found = soft_loss(student, likeliest(teacher, 4), Divergence())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, soft_loss(student.float(), likeliest(teacher, 4), Divergence()), atol=0, rtol=0)


# Vocabularies padded to another width


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(("of_teacher", "of_student"), [(8, 6), (6, 8)])
def test_of_vocabularies_of_other_widths_the_tokens_of_both_are_compared(
    way: Divergence, of_teacher: int, of_student: int
):
    teacher, student = random_logits(3, of_teacher, 1), random_logits(3, of_student, 2)
    found = soft_loss(student, FullRows(logits_NW=teacher), way)
    sliced = soft_loss(student[:, :6].contiguous(), FullRows(logits_NW=teacher[:, :6]), way)
    torch.testing.assert_close(found, sliced)
    entropy, _ = with_cross_entropy(student, torch.tensor([0, 1, 5]), FullRows(logits_NW=teacher), way)
    wanted = torch.nn.functional.cross_entropy(student, torch.tensor([0, 1, 5]), reduction="none")
    torch.testing.assert_close(entropy, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_kept_tokens_that_only_the_teacher_has_are_its_tail(kind: str):
    # p = (1/2 for 0, 1/4 for 9, 1/8 for 1 | 1/8); the student knows tokens 0 to 3: p = (1/2, 1/8 | 3/8).
    rows = LikeliestRows(
        tokens_NK=torch.tensor([[0, 9, 1]]),
        logits_NK=torch.tensor([logs(1, 0.5, 0.25)]),
        log_norm_N=torch.tensor([math.log(2)]),
    )
    student = torch.tensor([logs(0.25, 0.25, 0.25, 0.25)], requires_grad=True)
    way = Divergence(kind=kind)
    loss = soft_loss(student, rows, way)
    assert float(loss.detach()) == pytest.approx(by_loop([0.5, 0.125, 0.375], [0.25, 0.25, 0.5], way), abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.isfinite().all() and float(gradient.sum()) == pytest.approx(0, abs=1e-6)


def test_draws_that_only_the_teacher_knows_are_left_out():
    student = torch.tensor([logs(0.5, 0.5)])
    rows = SampledRows(tokens_NK=torch.tensor([[7, 1]]), counts_NK=torch.tensor([[3, 1]], dtype=torch.int32))
    torch.testing.assert_close(soft_loss(student, rows, Divergence()), torch.tensor([math.log(2)]))


# What is refused


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, math.nan])
def test_a_beta_that_teaches_nothing_is_refused(beta: float):
    with pytest.raises(ValueError, match="beta"):
        Divergence(kind="jensen-shannon", beta=beta)
    assert Divergence(kind="forward-kl", beta=beta).kind == "forward-kl"


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature: float):
    with pytest.raises(ValueError, match="temperature"):
        Divergence(temperature=temperature)


@pytest.mark.parametrize("way", [Divergence(kind="reverse-kl"), Divergence(temperature=2.0)])
def test_draws_are_for_the_cross_entropy_at_temperature_one(way: Divergence):
    rows = SampledRows(tokens_NK=torch.tensor([[0]]), counts_NK=torch.tensor([[1]]))
    with pytest.raises(ValueError, match="sampled"):
        soft_loss(torch.zeros(1, 2), rows, way)
