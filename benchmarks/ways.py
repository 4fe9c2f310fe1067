"""One attention call by each of the ways of `stages.attention.kernels`, against the call alone.

Prints, for each length, the median seconds of the bare call and the ratio of each way to it: log-sum-exp, indicator
values, block by block. One layer's attention only, without the rest of the model; `molsaki bench attention` measures
whole passes.

    python benchmarks/ways.py --lengths 256,1024,4096 --heads 8 --size 64 --words 24
"""

import json
import statistics
import time
from collections.abc import Callable

import click
import torch

from stages.attention.kernels import (
    AttentionCall,
    attention_from_indicators,
    attention_from_log_sum_exp,
    block_by_block,
    fused_with_log_sum_exp,
)
from stages.attention.tokens import Pooling

STEPS = 8


def by_log_sum_exp(call: AttentionCall, pool: Pooling) -> object:
    """The call, and attention from its log-sum-exp."""
    found = fused_with_log_sum_exp(call)
    assert found is not None, "no fused kernel takes this call"
    return attention_from_log_sum_exp(call, found[1], pool)


def by_indicators(call: AttentionCall, pool: Pooling) -> object:
    """The call, and a second one with indicator values."""
    return call.fused(), attention_from_indicators(call, pool)


WAYS: dict[str, Callable[[AttentionCall, Pooling], object]] = {
    "bare call": lambda call, _: call.fused(),
    "log-sum-exp": by_log_sum_exp,
    "indicator values": by_indicators,
    "block by block": block_by_block,
}


def random_call(length: int, heads: int, size: int, device: torch.device, dtype: torch.dtype) -> AttentionCall:
    """Random queries, keys and values of one text."""
    query, key, value = torch.randn(3, 1, heads, length, size, device=device, dtype=dtype)
    return AttentionCall(query_BHTD=query, key_BGTD=key, value_BGTD=value, mask=None, is_causal=True, scale=size**-0.5)


def random_pool(length: int, words: int, device: torch.device) -> Pooling:
    """Words of one and two tokens in turn over the text, steps over its second half."""
    steps, of_word = torch.zeros(1, STEPS, length), torch.zeros(1, length, words)
    for token in range(length // 2, length):
        steps[0, (token - length // 2) * STEPS // (length - length // 2), token] = 1
    for word in range(words):
        first = 1 + word * (length - 3) // words
        of_word[0, first : first + 1 + word % 2, word] = 1
    return Pooling(steps_BST=steps.to(device), words_BTK=of_word.to(device))


def seconds(way: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one execution, finished on the device."""
    start = time.perf_counter()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@click.command()
@click.option("--lengths", default="256,1024,4096", show_default=True)
@click.option("--heads", default=8, show_default=True)
@click.option("--size", default=64, show_default=True, help="Width of a head.")
@click.option("--words", default=24, show_default=True)
@click.option("--repeats", default=9, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True)
@torch.inference_mode()
def main(lengths: str, heads: int, size: int, words: int, repeats: int, dtype: str, device: str, as_json: bool) -> None:
    """Time one attention call by each way."""
    torch.manual_seed(0)
    place, results = torch.device(device), []
    for length in map(int, lengths.split(",")):
        call = random_call(length, heads, size, place, getattr(torch, dtype))
        pool = random_pool(length, words, place)
        rounds = [{name: seconds(lambda: way(call, pool), place) for name, way in WAYS.items()} for _ in range(repeats)]  # noqa: B023  run at once
        results += [
            {
                "case": f"T={length} H={heads} D={size} K={words} {dtype} {device}",
                "method": name,
                "seconds": statistics.median(one[name] for one in rounds[1:]),
                "to_bare_call": statistics.median(one[name] / one["bare call"] for one in rounds[1:]),
            }
            for name in WAYS
        ]
    if as_json:
        click.echo(json.dumps(results, indent=1))
        return
    for result in results:
        click.echo(
            f"{result['case']:40} {result['method']:18} {result['seconds'] * 1e3:9.1f} ms {result['to_bare_call']:6.2f}"
        )


if __name__ == "__main__":
    main()
