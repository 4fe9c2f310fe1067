"""The teacher's soft labels as the command line makes them, into a store that experiments share.

In: the inputs of a run and its records. Out: records in `<store>/soft-labels/…`. Nothing is created and no model is
loaded until `execute`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from cache.fingerprints import Spec
from cache.keys import KeyRows
from cache.soft_labels.reader import recorded_rows
from cache.spaces import Space
from pipeline.run.inputs import Inputs
from pipeline.run.plan import StagePlan
from pipeline.run.provenance import commit_note
from pipeline.run.teacher import AttentionStage, RecordStage
from stages.attention.select import Selection
from stages.runtime.imports import importing
from stages.runtime.progress import Progress
from stages.runtime.shard import Shard
from stages.settings import SoftLabelSettings
from stages.soft_labels.spec import soft_label_slug, soft_label_spec
from stages.student.objective import objective_of

if TYPE_CHECKING:
    from cache.soft_labels.reader import SoftLabelStore
    from stages.attention.write import Beside


class SoftLabelStage(RecordStage):
    """Records what else the teacher could have written at each token of the rationales; with `shard` of some only."""

    name = "soft-labels"
    _spec_of, _slug_of = staticmethod(soft_label_spec), staticmethod(soft_label_slug)

    def __init__(self, inputs: Inputs, attention: AttentionStage, shard: Shard | None = None) -> None:
        """`attention` is of the whole run, and says which its records are, whether attention is recorded or not."""
        super().__init__(inputs, shard)
        self._attention = attention

    @cached_property
    def settings(self) -> SoftLabelSettings:
        """Those of the configuration, with what its objective and its attention say; `top` where no objective does."""
        config = self._inputs.config
        settings, term = config.soft_labels, objective_of(config.objective).soft_labels
        if settings.begin_token is None:
            settings = replace(settings, begin_token=config.attention.begin_token)
        if settings.layout != "auto":
            return settings
        of_hidden = term is not None and term.match == "tokens" and term.temperature != 1
        return replace(settings, layout="hidden" if of_hidden else "top")

    @property
    def _settings(self) -> SoftLabelSettings:
        return self.settings

    def _speed(self) -> Spec:
        teacher = self._inputs.config.teacher
        devices = {"device": teacher.device, "device_map": teacher.device_map}
        return {**devices, "batch_tokens": self.settings.batch_tokens}

    @property
    def selection(self) -> Selection:
        """The records of the run: kept rationales, marked as for its attention."""
        return self._attention.selection

    @property
    def rationale_plan(self) -> StagePlan:
        """What has been done of the rationales."""
        return self._attention.rationale_plan

    def _stored(self, space: Space) -> KeyRows:
        return recorded_rows(space)

    def _writing(self, space: Space, progress: Progress) -> Callable[..., None]:
        from cache.soft_labels.writer import SoftLabelWriter

        with importing():
            from stages.soft_labels.write import write_soft_labels

        return partial(write_soft_labels, writer=SoftLabelWriter(space, note=commit_note()))

    def beside_attention(self, progress: Progress) -> "Beside | None":
        """What makes them of the pass that records attention; None where that reads other texts, or none lacks them."""
        settings, attention = self.settings, self._inputs.config.attention
        same = settings.context == "plain" and settings.begin_token == attention.begin_token
        if not same or self.plan().to_do == 0:
            return None
        from cache.soft_labels.writer import SoftLabelWriter
        from stages.soft_labels.write import BesideAttention

        writer = SoftLabelWriter(self._open_or_create(progress), note=commit_note())
        return BesideAttention(writer, self._known, self._inputs.config.teacher, settings)

    def open(self) -> "SoftLabelStore":
        """Open the stored soft labels for training."""
        from cache.soft_labels.reader import SoftLabelStore

        return SoftLabelStore(self._open())
