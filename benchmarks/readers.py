"""Who can read a store without our code: readers of zarr and of Parquet, each in an environment of its own.

In: nothing but options. Out: a table of readers, their versions, what each was given to read and what came of it:
`equal` is equal to the bit. Attention has a part with what steps look at in all and one without; rationales have a part
of before `sample` and `keywords` and one of now; where a student looked is stored as float32 and, as before, as
float16, 30,000 times 0.1 in each. Packages are installed by pip and npm into temporary folders.

    python -P benchmarks/readers.py
    python -P benchmarks/readers.py --python python3.11 --only zarr==3.1.6
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet as pq

from cache.keys import record_key
from cache.parts.kinds import part_layout
from cache.parts.reader import Part
from cache.rationales import FILE, OLD_SCHEMA, Attempt, RationaleStore
from cache.spaces import Space
from cache.student_attention import OLD_SCHEMA as HALVES
from cache.student_attention import STUDENT_ATTENTION, StudentLook, write_student_attention
from cache.writer import AttentionBlock, AttentionWriter
from data.marking import mark
from pipeline.console.tables import print_rows

COMMON = """
import glob, hashlib, json, os, sys
store = sys.argv[1]
parts = sorted(glob.glob(f"{store}/attention/*/parts/*"))
names = {part: sorted(path.split("/")[-2] for path in glob.glob(f"{part}/*/zarr.json")) for part in parts}
files = sorted(glob.glob(f"{store}/rationales/*/parts/*/attempts.parquet"))
looks = {"float32": f"{store}/now/student_attention.parquet", "float16": f"{store}/before/student_attention.parquet"}
found = {}

def tried(read):
    try:
        return read()
    except Exception as error:
        while getattr(error, "exceptions", None):
            error = error.exceptions[0]
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"

def see(what, read):
    found[what] = tried(read)

def arrays(read):
    def described(part, name):
        array = read(part, name)
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    found["attention"] = {
        f"{part.split('/')[-1]}/{name}": tried(lambda: described(part, name)) for part in parts for name in names[part]
    }

def attempts(what, rows):
    see(f"rationales, {what}", lambda: sorted(
        [row["key"], int(row["sample"]) if row["sample"] == row["sample"] and row["sample"] is not None else None,
         row["output"]] for row in rows()
    ))
"""
ZARR = """
import zarr
arrays(lambda part, name: zarr.open_group(part, mode="r", zarr_format=3)[name][...])
"""
OF_ZARR: Mapping[str, str] = {
    "zarr": ZARR,
    "zarrs": "import zarr, zarrs\nzarr.config.set({'codec_pipeline.path': 'zarrs.ZarrsCodecPipeline'})\n" + ZARR,
    "tensorstore": """
import tensorstore
arrays(lambda part, name: tensorstore.open(
    {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{part}/{name}/"}}).result().read().result())
""",
    "xarray": """
import xarray
arrays(lambda part, name: xarray.open_zarr(part, consolidated=False)[name].values)
""",
    "dask": """
import dask.array
arrays(lambda part, name: dask.array.from_zarr(part, component=name).compute())
""",
    "zarrita": """
import zarrita
arrays(lambda part, name: zarrita.Array.open(zarrita.LocalStore(part) / name)[:])
""",
}
OF_PARQUET: Mapping[str, str] = {
    "duckdb": """
import duckdb
def rows(options=""):
    columns = "key, sample, output"
    return [dict(zip(("key", "sample", "output"), row)) for row in
            duckdb.sql(f"select {columns} from read_parquet({files}{options})").fetchall()]
attempts("plainly", rows)
attempts("union_by_name=true", lambda: rows(", union_by_name=true"))
for name, path in looks.items():
    see(f"sum of {name}", lambda: duckdb.sql(
        f'select sum(v) from (select key, unnest("values") v from read_parquet(\\'{path}\\')) group by key'
    ).fetchall()[0][0])
""",
    "polars": """
import polars
attempts("plainly", lambda: polars.read_parquet(files).to_dicts())
attempts('how="diagonal"', lambda: polars.concat(map(polars.read_parquet, files), how="diagonal").to_dicts())
for name, path in looks.items():
    see(f"sum of {name}", lambda: float(polars.read_parquet(path).explode("values").group_by("key").agg(
        polars.col("values").sum())["values"][0]))
""",
    "pyarrow": """
import pyarrow, pyarrow.compute, pyarrow.parquet
tables = lambda: [pyarrow.parquet.read_table(file) for file in files]
attempts("plainly", lambda: pyarrow.parquet.read_table(files).to_pylist())
attempts('promote_options="default"',
         lambda: pyarrow.concat_tables(tables(), promote_options="default").to_pylist())
for name, path in looks.items():
    see(f"sum of {name}", lambda: pyarrow.compute.sum(
        pyarrow.parquet.read_table(path)["values"].combine_chunks().flatten()).as_py())
""",
    "fastparquet": """
import fastparquet, numpy, pandas
frames = lambda: [fastparquet.ParquetFile(file).to_pandas() for file in files]
attempts("file by file, pandas.concat", lambda: pandas.concat(frames()).to_dict("records"))
for name, path in looks.items():
    see(f"sum of {name}", lambda: float(
        numpy.array(list(fastparquet.ParquetFile(path).to_pandas()["values"][0])).sum()))
""",
    "pandas": """
import pandas
attempts("file by file, pandas.concat", lambda: pandas.concat(map(pandas.read_parquet, files)).to_dict("records"))
for name, path in looks.items():
    see(f"sum of {name}", lambda: float(pandas.read_parquet(path)["values"][0].sum()))
""",
}
READERS: Mapping[str, Sequence[str]] = {
    "zarr==3.1.6": (),
    "zarr==3.4.2": (),
    "zarrs==0.2.3": (),
    "tensorstore==0.1.86": (),
    "xarray==2026.9.0": ("zarr==3.4.2",),
    "dask==2026.8.0": ("zarr==3.4.2",),
    "zarrita==0.2.7": (),
    "npm:zarrita@0.7.5": ("@zarrita/storage@0.2.0", "@petamoriken/float16@3.9.3"),
    "duckdb==2.0.1": (),
    "polars==2.1.0": (),
    "pyarrow==26.0.1": (),
    "fastparquet==2026.9.0": (),
    "pandas==3.1.1": ("pyarrow==26.0.1",),
}
"""What is installed, and what beside it."""
END = "\nprint(json.dumps(found))\n"
TENTHS = (3, 100, 100)
SCRIPT = Path(__file__).with_suffix(".mjs")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one reader has made of one thing."""

    reader: str
    what: str
    result: object


def make_store(folder: Path) -> dict[str, object]:
    """Write what is read; returns what each reader should find."""
    return {"attention": _attention(folder), "rationales": _rationales(folder), "sum": _looks(folder)}


def _attention(folder: Path) -> dict[str, list[object]]:
    space = Space.open_or_create(folder, "attention", "teacher", {"schema": 1})
    marked = [mark(f"Ann has {n} figs and buys 4.", f"She has {n} + 4. That is {n + 4}.") for n in range(5)]
    random = np.random.default_rng(0)
    shapes = [(2, len(one.step_spans), len(one.critical_spans)) for one in marked]
    blocks = [
        AttentionBlock(
            key=record_key(one),
            marked=one,
            attention=random.random(shape, np.float32),
            step_tokens=np.full(shape[1], 9),
            receivers=random.random((*shape[:2], 3), np.float32),
        )
        for one, shape in zip(marked, shapes, strict=True)
    ]
    AttentionWriter(space).append(blocks[:3])
    AttentionWriter(space).append([replace(block, receivers=None) for block in blocks[3:]])
    return {
        f"{commit.part}/{name}": [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
        for commit in space.commits()
        for layout in [part_layout(space, commit)]
        for part in [Part(space, commit, layout)]
        for name in layout.present(commit.files)
        for array in [part.read_array(name)]
    }


def _rationales(folder: Path) -> list[list[object]]:
    """One part with all columns, and one without those that were added later, whose cells are then missing."""
    store = RationaleStore(Space.open_or_create(folder, "rationales", "teacher", {"schema": 1}))
    for start in (0, 3):
        store.append([_attempt(number) for number in range(start, start + 3)])
    old = store.space.part_path(store.space.commits()[0]) / FILE
    pq.write_table(pq.read_table(old).select(OLD_SCHEMA.names), old, compression="zstd")
    return [[f"{number:064x}", None if number < 3 else 1, f"{number} ä"] for number in range(6)]


def _attempt(number: int) -> Attempt:
    return Attempt(
        key=f"{number:064x}",
        question_id=str(number),
        dataset="made up",
        question="How many?",
        gold=str(number),
        phase="plain",
        output=f"{number} ä",
        rationale="So many.",
        answer=str(number),
        outcome="kept",
        sample=1,
    )


def _looks(folder: Path) -> float:
    """Where a student looked, as it is written and as it was before; returns the sum of the values of a row."""
    tenths = np.full(TENTHS, 0.1, np.float16)
    look = StudentLook(key="a", when="after", attention=tenths, layer_weights=None)
    for name in ("now", "before"):
        (folder / name).mkdir()
        write_student_attention(folder / name, [look])
    before = folder / "before" / STUDENT_ATTENTION
    pq.write_table(pq.read_table(before).cast(HALVES), before)
    return float(tenths.astype(np.float64).sum())


def read_by(package: str, beside: Sequence[str], python: str, store: Path) -> Iterator[Seen]:
    """Install a reader into a new environment and let it read the store."""
    with tempfile.TemporaryDirectory() as folder:
        of_npm = package.startswith("npm:")
        reading = (_node if of_npm else _python)(package.removeprefix("npm:"), beside, python, Path(folder))
        done = subprocess.run([*reading, str(store)], capture_output=True, text=True, check=False)  # noqa: S603  our own
    if done.returncode:
        yield Seen(reader=package, what="everything", result=done.stderr.strip().splitlines()[-1])
        return
    for what, result in json.loads(done.stdout.splitlines()[-1]).items():
        yield Seen(reader=package, what=what, result=result)


def _python(package: str, beside: Sequence[str], python: str, folder: Path) -> list[str]:
    own = f"{folder}/bin/python"
    for command in ([python, "-m", "venv", str(folder)], [own, "-m", "pip", "install", "--quiet", package, *beside]):
        subprocess.run(command, check=True)  # noqa: S603  our own
    code = COMMON + {**OF_ZARR, **OF_PARQUET}[package.partition("==")[0]] + END
    return [own, "-I", "-W", "ignore", "-c", code]


def _node(package: str, beside: Sequence[str], _: str, folder: Path) -> list[str]:
    command = ["npm", "install", "--silent", "--prefix", str(folder), package, *beside]
    subprocess.run(command, check=True)  # noqa: S603  our own
    shutil.copy(SCRIPT, folder)
    return ["node", f"{folder}/{SCRIPT.name}"]


def judged(seen: Seen, expected: Mapping[str, object]) -> Seen:
    """Say whether what was read is what is stored; an error of a reader stays what it is."""
    wanted = expected.get(seen.what.partition(",")[0].partition(" of ")[0])
    if isinstance(wanted, float) and isinstance(seen.result, float):
        close = abs(seen.result - wanted) <= 1e-5 * wanted
        return replace(seen, result=f"{seen.result:,.1f}" + ("" if close else f", expected {wanted:,.1f}"))
    if isinstance(seen.result, str):
        return replace(seen, result=seen.result[:90])
    if isinstance(seen.result, dict) and isinstance(wanted, dict) and seen.result != wanted:
        other = {name: result for name, result in seen.result.items() if result != wanted[name]}
        name, first = next(iter(other.items()))
        result = f"{len(wanted) - len(other)} of {len(wanted)} arrays equal; {name.partition('/')[2]}: {first}"
        return replace(seen, result=result)
    return replace(seen, result="equal" if seen.result == wanted else "another content")


@click.command()
@click.option("--python", default=sys.executable, help="Interpreter of the environments.  [default: this one]")
@click.option("--only", multiple=True, metavar="NAME==VERSION", help="These readers alone.")
@click.option("--json", "as_json", is_flag=True)
def main(python: str, only: Sequence[str], as_json: bool) -> None:
    """Let each reader read one small store."""
    found: list[Seen] = []
    with tempfile.TemporaryDirectory() as folder:
        expected = make_store(Path(folder))
        for package in only or READERS:
            found += [
                judged(seen, expected) for seen in read_by(package, READERS.get(package, ()), python, Path(folder))
            ]
    if as_json:
        click.echo(json.dumps([asdict(seen) for seen in found], indent=1))
        return
    print_rows(("reader", "what", "result"), [(seen.reader, seen.what, str(seen.result)) for seen in found])


if __name__ == "__main__":
    main()
