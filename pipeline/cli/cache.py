"""The group `molsaki cache`: what the stores hold, whether it is sound, and ways in and out of them.

What opens a store is imported where it is done, so that help needs neither zarr nor numpy.
"""

import re
from pathlib import Path
from typing import Any

import click

from cache.spaces import default_store, describe
from data.errors import ConfigError
from pipeline.cli.options import (
    FILE,
    POSITIVE,
    device_option,
    examples,
    json_option,
    quiet_option,
    read_by,
    store_option,
)

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def read_age(text: str) -> float:
    """Read `1d`, `12h`, `30m`, `90s` or `2w` as seconds; raises `ConfigError` for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if not found:
        raise ConfigError(f"expected a number and s, m, h, d or w, such as 12h; found {text!r}")
    return float(found[1]) * SECONDS[found[2]]


@click.group()
def cache() -> None:
    """Look into the stores of rationales and attention."""


@examples("molsaki cache ls", "molsaki cache ls --store /scratch/molsaki --json")
@cache.command("ls")
@store_option
@json_option
def cache_ls(store: Path | None, as_json: bool) -> None:
    """List the spaces of a store; one that cannot be opened does not hide the others, and is an error."""
    from pipeline.store.spaces import list_store

    list_store(store or default_store(), as_json=as_json)


@examples(
    "molsaki cache show attention/Qwen2.5-7B-Instruct",
    "molsaki cache show attention/Qwen2.5-7B-Instruct --record 3fa9        one record, and where its steps look",
)
@cache.command("show")
@click.argument("space")
@store_option
@click.option("--record", metavar="KEY", help="Show this record with its heat map; the beginning of its key will do.")
@click.option("--layer", type=POSITIVE, help="Of --record: this layer, from 1.  [default: mean of all]")
@click.option("--mixture", is_flag=True, help="Of --record: the layers mixed as students learn them (Eq. 4).")
@json_option
def cache_show(
    space: str, store: Path | None, record: str | None, layer: int | None, mixture: bool, as_json: bool
) -> None:
    """Say what SPACE holds and what it was made with; SPACE is a folder or the beginning of a name in the store.

    With --record it may also be a configuration, the folder of a run or matrix, a tar file or an address, as in
    `molsaki plot`.
    """
    if record is not None:
        from pipeline.views.record_table import show_record

        show_record(space, store, record, layer=layer, mixture=mixture, as_json=as_json)
        return
    if layer is not None or mixture:
        raise click.UsageError("--layer and --mixture go with --record")
    from pipeline.store.spaces import default_targets, find_space
    from pipeline.store.tables import print_space

    found = find_space(space, store or default_store())
    print_space(describe(found), default_targets(found), as_json=as_json)


@examples(
    "molsaki cache export attention/Qwen2.5-7B-Instruct /shared/qwen",
    "molsaki cache export attention/Qwen2.5-7B-Instruct hf://datasets/me/qwen-attention/space.tar",
    "molsaki cache export attention/Qwen2.5-7B-Instruct part.tar --keys keys.txt",
)
@cache.command("export")
@click.argument("space")
@click.argument("target")
@click.option("--keys", type=FILE, help="Only the records with these keys, one a line.")
@store_option
@quiet_option
@json_option
def cache_export(space: str, target: str, store: Path | None, **options: Any) -> None:  # click's own types
    """Write SPACE to TARGET: a folder, a .tar file, or an address such as s3://bucket/space.

    A README card says what it is. The same command goes on where it was interrupted, and adds what is new to a folder.
    """
    from pipeline.store.commands import run_export

    run_export(space, store or default_store(), target, **options)


@examples(
    "molsaki cache import /shared/qwen",
    "molsaki cache import hf://datasets/me/qwen-attention/space.tar",
    "molsaki cache import /scratch/store/attention/qwen-numbers-0123456789abcdef      merges another store",
)
@cache.command("import")
@click.argument("source")
@store_option
@quiet_option
@json_option
def cache_import(source: str, store: Path | None, **options: Any) -> None:  # click's own types
    """Take the space at SOURCE into the store: a folder, a .tar file, or an address such as s3://bucket/space.

    Nothing in it is trusted: every byte and every record is checked before the store changes. Records that are there
    already stay as they are.
    """
    from pipeline.store.commands import run_import

    run_import(source, store or default_store(), **options)


@examples(
    "molsaki cache verify attention/Qwen2.5-7B-Instruct",
    "molsaki cache verify attention/Qwen2.5-7B-Instruct --deep --store /shared/molsaki",
    "molsaki cache verify attention/Qwen2.5-7B-Instruct --repair",
    "molsaki cache verify attention/Qwen2.5-7B-Instruct --against-teacher 20 --teacher Qwen/Qwen2.5-7B-Instruct",
)
@cache.command("verify")
@click.argument("space")
@store_option
@click.option("--deep", is_flag=True, help="Decode everything and judge every record.")
@click.option(
    "--repair", "mend", is_flag=True, help="Keep what is sound of damaged parts; the next run computes the rest."
)
@click.option("--against-teacher", type=POSITIVE, metavar="N", help="Run N records through the teacher again.")
@click.option("--teacher", metavar="PATH_OR_ID", help="Where the teacher is, for --against-teacher.")
@click.option(
    "--engine",
    type=click.Choice(["transformers", "vllm"]),
    help="Who runs the teacher for --against-teacher.  [default: who made the space]",
)
@device_option
@quiet_option
@json_option
def cache_verify(space: str, store: Path | None, **options: Any) -> None:  # click's own types
    """Check everything that SPACE has committed, and list all damage; SPACE as in `cache show`.

    Sizes, hashes and checksums by default. Ends with exit code 65 where damage is left.
    """
    from pipeline.store.commands import verify_space

    verify_space(space, store or default_store(), **options)


@examples("molsaki cache gc --dry-run", "molsaki cache gc attention/Qwen2.5-7B-Instruct --older-than 1w")
@cache.command("gc")
@click.argument("spaces", metavar="[SPACE]...", nargs=-1)
@store_option
@click.option("--older-than", default="1d", callback=read_by(read_age), metavar="AGE", help="Such as 12h or 2w.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed and remove nothing.")
@quiet_option
@json_option
def cache_gc(spaces: tuple[str, ...], store: Path | None, **options: Any) -> None:  # click's own types
    """Remove what no commit names: parts of killed writers, temporary files, what a repair withdrew.

    All spaces of the store, or those named. Without a name also what lies beside them: staging folders of killed
    imports and exports, and targets and texts of spaces that are gone. What is younger than AGE stays, for somebody may
    be writing or reading it.
    """
    from pipeline.store.commands import collect_garbage

    collect_garbage(spaces, store or default_store(), **options)
