"""Random models for benchmarks, Llama-shaped: what is measured does not depend on what the weights know."""

from dataclasses import asdict, dataclass
from importlib.metadata import version

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel

from data.errors import ConfigError
from stages.settings import Dtype

SEED = 0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Size of a random Llama; the feed-forward part is as wide as Llama's, 8/3 of the width."""

    layers: int
    width: int
    heads: int
    kv_heads: int

    @property
    def feed_forward(self) -> int:
        """8/3 of the width, rounded up to a multiple of 64."""
        return -(-8 * self.width // (3 * 64)) * 64


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What was measured on, as it turned out."""

    device: str
    threads: int
    torch: str
    transformers: str
    layers: int
    width: int
    heads: int
    kv_heads: int


def check_shape(shape: Shape) -> None:
    """Raise `ConfigError` where no Llama of this shape exists."""
    if shape.width % shape.heads or (shape.width // shape.heads) % 2:
        raise ConfigError(f"--width {shape.width}: expected an even multiple of --heads {shape.heads}")
    if shape.heads % shape.kv_heads:
        raise ConfigError(f"--heads {shape.heads}: expected a multiple of --kv-heads {shape.kv_heads}")


def random_llama(
    shape: Shape, *, positions: int, vocabulary: int, device: torch.device, dtype: Dtype
) -> PreTrainedModel:
    """Make a Llama with random weights, for texts of up to `positions` tokens, on `device`."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=positions,
        # As large at every width as 0.02 is at 4096. Were it 0.02 at width 512, attention would be all but even, and
        # the comparison of results would hardly see which tokens a method looked at.
        initializer_range=1.28 / shape.width**0.5,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(SEED)
    with device:  # made where and as it is used: 7 billion weights in float32 on the host would be 28 GB
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), attn_implementation="sdpa")


def shape_of(config: PreTrainedConfig) -> Shape:
    """The shape of a model with this configuration."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    return Shape(layers=text.num_hidden_layers, width=text.hidden_size, heads=heads, kv_heads=kv_heads)


def setting_of(model: PreTrainedModel) -> Setting:
    """Say what `model` is and runs on."""
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu"
    return setting_on(device, shape_of(model.config))


def setting_on(device: str, shape: Shape) -> Setting:
    """Say what a model of this shape runs on."""
    return Setting(
        device=device,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        transformers=version("transformers"),
        **asdict(shape),
    )
