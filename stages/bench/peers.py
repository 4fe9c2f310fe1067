"""TRL's SFTTrainer as a model whose forward pass returns its loss: what a step of it costs beside one of ours.

In: a student, the texts of both tasks with their labels, and the folder that TRL was installed into. Out: a module that
takes a batch of ours, says nothing of it, and computes the loss on the same texts as TRL collates and computes it. TRL
is no dependency: it is imported from that folder alone, and only where it is asked for.
"""

import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory

import datasets
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from stages.head import IGNORED
from stages.settings import Dtype
from stages.student.texts import TrainingText

PAD = "<pad>"


class SftModel(nn.Module):
    """A student in an SFTTrainer, completions alone in the loss, no padding taken out and nothing computed twice."""

    def __init__(self, student: PreTrainedModel, rows: Sequence[TrainingText], folder: str, dtype: Dtype) -> None:
        super().__init__()
        if folder not in sys.path:
            sys.path.append(folder)
        from trl import SFTConfig, SFTTrainer

        with TemporaryDirectory() as scratch:
            arguments = SFTConfig(
                output_dir=scratch,
                per_device_train_batch_size=len(rows),
                completion_only_loss=True,
                max_length=None,
                gradient_checkpointing=student.is_gradient_checkpointing,
                bf16=dtype == "bfloat16",
                fp16=dtype == "float16",
                use_cpu=student.device.type == "cpu",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            )
            self._trainer = SFTTrainer(
                model=student,
                args=arguments,
                train_dataset=datasets.Dataset.from_list([_completed(row) for row in rows]),
                processing_class=_tokenizer(),
            )
        self.student = student
        (self._inputs,) = self._trainer.get_train_dataloader()

    def forward(self, **_batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return TRL's `loss` of its own batch."""
        inputs = {name: one.to(self.student.device) for name, one in self._inputs.items()}
        loss: torch.Tensor = self._trainer.compute_loss(self.student, inputs)
        return {"loss": loss}


def _completed(text: TrainingText) -> dict[str, list[int]]:
    return {"input_ids": text.ids.tolist(), "completion_mask": (text.labels != IGNORED).astype(int).tolist()}


def _tokenizer() -> PreTrainedTokenizerFast:
    """One that knows how to pad, for texts that are token ids already."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({PAD: 0}, unk_token=PAD)), pad_token=PAD, eos_token=PAD
    )
