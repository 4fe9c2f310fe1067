"""Hand a finished student on to the Hugging Face hub, when somebody asks for just that.

In: a run's folder, a seed and a repository id. Out: what loads there with transformers: weights, tokenizer, card, and
what the card is made of. What holds paths of this machine stays here; so do checkpoints. Who we are comes from the
environment (HF_TOKEN) or from `hf auth login`, and is never written anywhere.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from data.errors import ConfigError, EngineError, MissingRecordsError
from pipeline.results.folder import CARD, KEPT_HERE, RunFolder

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, RepoUrl

FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt", "adapter/*", CARD)
"""What a student consists of for others."""


class Hub(Protocol):
    """What is needed of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, private: bool | None = None, exist_ok: bool = False) -> "RepoUrl":
        """Make a repository, unless it is there."""

    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path: str | Path,
        commit_message: str | None = None,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
    ) -> "CommitInfo":
        """Commit files of a folder."""


def push_student(run: Path, seed: int, repository: str, *, private: bool, hub: Hub | None = None) -> str:
    """Upload the student of `seed` and return its address.

    Raises `MissingRecordsError` where there is no finished student, `ConfigError` for an id that is none, and
    `EngineError` where the hub refuses or is out of reach.
    """
    student = RunFolder(run).student(seed)
    if not run.is_dir():
        raise ConfigError(f"run {run}: no such folder; name a run's folder, such as runs/svamp")
    if not student.summary.exists():
        raise MissingRecordsError(
            f"{student.path}: no finished student; train it with: molsaki train CONFIG --seed {seed}"
        )
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The base class of all errors of whichever HTTP library the hub's client works with.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        api: Hub = hub or HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=student.path,
            commit_message=f"{run.resolve().name}, seed {seed}",
            allow_patterns=list(FILES),
            ignore_patterns=list(KEPT_HERE),
        )
    except HFValidationError as error:
        raise ConfigError(f"repository {repository}: {error}") from error
    except (http_error, OSError) as error:
        raise EngineError(
            f"{repository}: the hub did not take it ({error}); set HF_TOKEN or run `hf auth login`, then the same again"
        ) from error
    return str(address)
