"""The command `convert-gguf`: a GGUF file goes in, a folder that everything else loads comes out."""

from pathlib import Path
from typing import get_args

import click

from pipeline.cli.options import FILE, FOLDER, examples, quiet_option
from pipeline.console.exits import folder_of
from pipeline.console.progress import open_progress, quieten_libraries, stdout_to_stderr
from stages.runtime.progress import StopSignal
from stages.settings import Dtype


@examples(
    "molsaki convert-gguf SmolLM2-135M-Instruct.Q4_1.gguf models/SmolLM2-135M-Instruct",
    "molsaki convert-gguf teacher.Q8_0.gguf models/teacher --dtype bfloat16      half the size",
)
@click.command("convert-gguf")
@click.argument("file", type=FILE)
@click.argument("folder", type=FOLDER)
@click.option(
    "--dtype",
    type=click.Choice(get_args(Dtype)),
    default="float32",
    help="How weights are stored. float32 holds what the file says exactly; the others round it, at half the size.",
)
@quiet_option
def convert_gguf(file: Path, folder: Path, dtype: Dtype, quiet: bool) -> None:
    """Write the model of a GGUF FILE as a plain FOLDER, for `teacher.model` and `student.model`.

    Weights are de-quantised and saved as safetensors, with tokenizer, configuration, and the file's hash in
    converted_from.json. What transformers does not read as the file says is refused. FOLDER appears whole or not at
    all.
    """
    quieten_libraries(quiet=quiet)  # before transformers is imported
    from stages.models import gguf

    with (
        StopSignal() as stop,
        stdout_to_stderr(),
        open_progress(quiet=quiet) as progress,
        folder_of(f"the folder {folder}", "name another"),
        stop.at_once("nothing"),
    ):
        gguf.convert_gguf(file, folder, dtype=dtype, progress=progress)
    click.echo(folder)
