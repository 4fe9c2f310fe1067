"""What the head and the cross-entropy of a student cost, forward and backward, in each of the ways that there are.

    python -P benchmarks/head_and_loss.py --repeats 5
    python -P benchmarks/head_and_loss.py --device cuda --dtype bfloat16 --tokens 16384

In: the shape of a batch and of a head. Out: for each way the median of its seconds and of its ratios to the first way,
round by round, and the most memory beyond what weights and hidden states take: of the process, or of torch on a GPU.
Each way has a process of its own, and rounds take turns. Before that, losses and gradients are compared.

- `all tokens`: logits of every token, and labels that are ignored, as causal models of transformers do it;
- `targets`: logits of those tokens that count, and torch's cross-entropy;
- `ours`: what training does (stages/head.py);
- `linear`, `linear chunked`: torch's `linear_cross_entropy`, as it is and with its chunks, at the tokens that count;
- `liger`: Liger's fused kernel, where it is installed and there is a GPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from stages.bench.measure import bytes_in_use, peak_bytes
from stages.head import IGNORED, AtTargets, Head

Way = Callable[["Batch"], torch.Tensor]
MIB = 2**20


class Batch:
    """Hidden states (T, C) of one row of tokens, the labels behind them (T), and a head (V, C)."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        made = {"device": options.device, "dtype": getattr(torch, options.dtype)}
        self.hidden = torch.randn(options.tokens, options.width, **made).requires_grad_()
        self.weight = nn.Parameter(torch.randn(options.vocabulary, options.width, **made).div_(options.width**0.5))
        counts = torch.rand(options.tokens, device=options.device) < options.targets
        labels = torch.randint(options.vocabulary, (options.tokens,), device=options.device)
        self.labels = torch.where(counts, labels, IGNORED)
        self.counts, self.wanted = counts, labels[counts]

    def gradients(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the hidden states and of the head, which are taken away."""
        found = self.hidden.grad, self.weight.grad
        assert found[0] is not None
        assert found[1] is not None
        self.hidden.grad = self.weight.grad = None
        return found[0], found[1]


class PlainHead(Head):
    """The head of no model."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.vocabulary = len(weight)
        self._weight = weight

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return nn.functional.linear(hidden, self._weight)


def all_tokens(batch: Batch) -> torch.Tensor:
    """Logits of every token."""
    logits = nn.functional.linear(batch.hidden, batch.weight).float()
    return nn.functional.cross_entropy(logits, batch.labels, ignore_index=IGNORED)


def targets(batch: Batch) -> torch.Tensor:
    """Logits of the tokens that count."""
    logits = nn.functional.linear(batch.hidden[batch.counts], batch.weight).float()
    return nn.functional.cross_entropy(logits, batch.wanted)


def ours(batch: Batch) -> torch.Tensor:
    """What training does."""
    said = batch.hidden[batch.counts]
    return AtTargets(wanted_N=batch.wanted, said=said, head=PlainHead(batch.weight)).loss()


def linear(batch: Batch) -> torch.Tensor:
    """Torch's loss of both, without its chunks."""
    return nn.functional.linear_cross_entropy(batch.hidden[batch.counts], batch.weight, batch.wanted)


def linear_chunked(batch: Batch) -> torch.Tensor:
    """Torch's loss of both, in its chunks."""
    options = nn.LinearCrossEntropyOptions()
    return nn.functional.linear_cross_entropy(batch.hidden[batch.counts], batch.weight, batch.wanted, options=options)


def liger(batch: Batch) -> torch.Tensor:
    """Liger's kernel."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    loss: torch.Tensor = liger_fused_linear_cross_entropy(batch.hidden[batch.counts], batch.weight, batch.wanted)
    return loss


WAYS: dict[str, Way] = {
    "all tokens": all_tokens,
    "targets": targets,
    "ours": ours,
    "linear": linear,
    "linear chunked": linear_chunked,
    "liger": liger,
}


def main() -> None:
    """Read the options; measure one way, or let a process measure each."""
    parser = argparse.ArgumentParser(description="Head and cross-entropy, forward and backward, in several ways.")
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--targets", type=float, default=0.2, help="share of the tokens that count")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[name for name in WAYS if is_here(name)])
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measured(Batch(options), WAYS[options.one], torch.device(options.device))))
        return
    print_agreement(Batch(options), options.ways)
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in options.ways}
    for turn in range(options.repeats):
        for name in options.ways[:: 1 if turn % 2 == 0 else -1]:
            rounds[name].append(in_a_process(name))
    first = rounds[options.ways[0]]
    print(f"{'way':<16} {'seconds':>8} {'ratio':>6} {'MiB':>7} {'ratio':>6}   medians of {options.repeats} rounds")
    for name, found in rounds.items():
        seconds, memory = ([one[index] for one in found] for index in (0, 1))
        ratios = [[one[index] / other[index] for one, other in zip(found, first, strict=True)] for index in (0, 1)]
        time_ratio, memory_ratio = map(statistics.median, ratios)
        middle = statistics.median(seconds), statistics.median(memory) / MIB
        print(f"{name:<16} {middle[0]:8.3f} {time_ratio:6.2f} {middle[1]:7,.0f} {memory_ratio:6.2f}")


def is_here(name: str) -> bool:
    """Whether what a way needs is there; Liger's kernel runs on GPUs only."""
    return name != "liger" or (find_spec("liger_kernel") is not None and torch.cuda.is_available())


def in_a_process(name: str) -> tuple[float, float]:
    """Seconds and bytes of one way, by a process that does nothing else."""
    command = [sys.executable, "-P", str(Path(__file__).resolve()), *sys.argv[1:], "--one", name]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout  # noqa: S603  our own
    seconds, memory = json.loads(said)
    return seconds, memory


def measured(batch: Batch, way: Way, device: torch.device) -> tuple[float, float]:
    """Seconds of the second pass, and the most bytes of both beyond those that were there before."""
    before = bytes_in_use(device)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        way(batch).backward()
        batch.gradients()[1][0, 0].item()  # a GPU has ended its work when this is known
        seconds = time.perf_counter() - started
    return seconds, peak_bytes(device) - before


def print_agreement(batch: Batch, names: list[str]) -> None:
    """By how much losses and gradients of the ways differ from those of the first, the latter to their largest."""
    first: tuple[torch.Tensor, ...] | None = None
    for name in names:
        loss = WAYS[name](batch)
        loss.backward()
        found = (loss.detach(), *batch.gradients())
        first = first or found
        apart = [float((one - other).abs().max() / other.abs().max()) for one, other in zip(found, first, strict=True)]
        print(f"{name}: loss {found[0].item():.6f}, apart {apart[0]:.1e}, gradients {apart[1]:.1e} and {apart[2]:.1e}")


if __name__ == "__main__":
    main()
