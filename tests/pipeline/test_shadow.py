"""The place in which samples run: all of the store is seen from there, and nothing of it changes."""

from pathlib import Path

from cache.keys import record_key
from cache.reader import AttentionStore
from cache.spaces import Space
from cache.writer import AttentionBlock, AttentionWriter
from data.marking import mark
from pipeline.config.schema import load_config
from pipeline.costs.shadow import shadow_of
from pipeline.run.inputs import Inputs
from pipeline.run.work import Run, open_stages
from tests.pipeline.conftest import Experiment


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def real_run() -> Run:
    return Run(config=load_config(Path("run.yaml")), folder=Path("runs/small"))


def test_shadow_shows_what_is_stored_and_keeps_what_is_written_for_itself(experiment: Experiment) -> None:
    import numpy as np

    experiment.run()
    before = content(Path("store")) | content(Path("runs"))
    (space,) = Path("store/attention").iterdir()
    with shadow_of(real_run(), with_students=True) as shadow:
        own = shadow.config.store / "attention" / space.name
        assert set(AttentionStore.open(own)) == set(AttentionStore.open(space))
        plans = {name: stage.plan() for name, stage in open_stages(shadow, Inputs(shadow.config)).items()}
        assert plans["attention"].finished and plans["train"].done == 2
        marked = mark("Bob has 5 pens.", "He has 5. The answer is 5.")
        shape = (2, len(marked.step_spans), len(marked.critical_spans))
        AttentionWriter(Space.open(own)).append(
            [
                AttentionBlock(
                    key=record_key(marked),
                    marked=marked,
                    attention=np.ones(shape, dtype=np.float32),
                    step_tokens=np.ones(shape[1], dtype=np.int32),
                )
            ]
        )
        assert len(AttentionStore.open(own)) == len(AttentionStore.open(space)) + 1
        place = shadow.folder.parents[1]
    assert not place.exists()
    assert content(Path("store")) | content(Path("runs")) == before


def test_shadow_of_a_run_that_has_not_begun_is_empty(experiment: Experiment) -> None:
    with shadow_of(real_run(), with_students=False) as shadow:
        assert not open_stages(shadow, Inputs(shadow.config))["rationales"].plan().done
        assert shadow.config.store.is_dir() and shadow.config.store.resolve() != Path("store").resolve()
    assert not Path("store").exists() and list(Path("runs").iterdir()) == []
