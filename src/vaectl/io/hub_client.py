"""The client of the Hugging Face hub, for all versions of `huggingface_hub`: list, download, find in the cache.

Its bars, warnings and log are silenced where our own progress is shown, and its errors become ours. Does not know which
files make a model. `huggingface_hub` is imported on first use.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from vaectl.errors import UsageError, VaectlError, shown
from vaectl.io.hub_settings import LOG_IN, check_cache, check_token, import_client
from vaectl.model_names import HubName, how_to_download
from vaectl.progress import Progress
from vaectl.shortage import cannot_write, is_disk_shortage, is_memory_shortage

T = TypeVar("T")
MB = 10**6
LIMIT = 30.0
"""Minimum of the seconds for a list of files or a small file. Those of the client are between two pieces of it."""
MISSING = "no such file or directory, and "
ANSWERED = frozenset(
    {
        *("AttributeError", "LookupError", "RecursionError", "TypeError", "UnicodeDecodeError", "JSONDecodeError"),
        *("ContentDecodingError", "DecodingError", "FileMetadataError", "TooManyRedirects"),
    }
)
"""Errors of Python, of the HTTP libraries and of the client about an answer that they cannot use."""


class Files(NamedTuple):
    """The files of a repository: on the hub, or those of them that are in the cache."""

    names: Collection[str]
    get: Callable[[str], Path]
    """Return the local path of a file, after downloading it if needed. Raises UsageError if there is none."""


class LacksError(UsageError):
    """A repository, or the part of it that is in the cache, lacks a file of the model."""


class FailedError(Exception):
    """The hub did not give what was asked for."""

    def __init__(self, clause: str, error: VaectlError) -> None:
        """`clause` says why, in a few words; `error` is the one to raise if the cache does not help."""
        super().__init__(clause)
        self.clause, self.error = clause, error


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


@contextmanager
def client(name: HubName, *, quiet: bool) -> Iterator[None]:
    """Import the client; if `quiet`, silence its bars, warnings and log.

    Raises UsageError if it is not installed, if its settings or its cache are damaged, or if `name` cannot be the name
    of a repository.
    """
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        utils = import_client(name)
        try:
            utils.validate_repo_id(name.repository)
        except ValueError:
            problem = f"{name}: no such file or directory, and no name of a repository"
            raise UsageError(problem, "check the path or the name") from None
        check_token(name)
        check_cache(name)
        level, hidden = utils.logging.get_verbosity(), utils.are_progress_bars_disabled()
        if quiet:
            utils.logging.set_verbosity_error()
            utils.disable_progress_bars()
        try:
            yield
        finally:
            utils.logging.set_verbosity(level)
            if not hidden:
                utils.enable_progress_bars()


@contextmanager
def _failures(name: HubName, wanted: str) -> Iterator[None]:
    """Turn all errors of the client while it gets what is `wanted` into FailedError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, VaectlError) or is_memory_shortage(error):
            raise
        raise _explain(name, error, wanted) from None


def _within_limit(call: Callable[[], T]) -> T:
    """Return the result of a call in a thread. Raises TimeoutError after LIMIT; the thread is left behind."""
    from huggingface_hub import constants

    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(LIMIT, constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT))
    if thread.is_alive():
        raise TimeoutError
    return result.result()


def files_on_hub(name: HubName, progress: Progress | None) -> Files:
    """List the files of a repository on the hub. Raises FailedError, as does `get` of the result."""
    from huggingface_hub import HfApi, constants

    revision = name.revision
    options: dict[str, Any] = {"timeout": constants.HF_HUB_ETAG_TIMEOUT, "files_metadata": True}
    with _failures(name, "list of files"):
        info: Any = _within_limit(lambda: HfApi().model_info(name.repository, revision=name.revision, **options))
        sizes = {each.rfilename: each.size or 0 for each in info.siblings}
        if not all(isinstance(file, str) and isinstance(size, int) for file, size in sizes.items()):
            raise TypeError

    def get(file: str) -> Path:
        nonlocal revision
        if file not in sizes:
            raise UsageError(f"{name}: the repository lacks {shown(file)}, which its index lists", "use another one")
        with _failures(name, f"file {shown(file)}"):
            path = _download(name.repository, file, revision, sizes[file], progress)
            if path.stat().st_size < sizes[file]:  # the cache is damaged
                path = _download(name.repository, file, revision, sizes[file], progress, force=True)
        # The first file is fetched by the revision, so that the cache knows its commit, the others by that commit.
        revision = root_of(path, file).name
        return path

    return Files(sizes, get)


def files_in_cache(name: HubName, probes: Iterable[str]) -> Files | None:
    """List the files of a repository in the cache; None if it has none of `probes`."""
    from huggingface_hub import try_to_load_from_cache

    for probe in probes:
        found = try_to_load_from_cache(name.repository, probe, revision=name.revision)
        if isinstance(found, str):
            return _files_below(root_of(Path(found), probe))
    return None


def _files_below(root: Path) -> Files:
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}

    def get(file: str) -> Path:
        if file not in paths:
            raise LacksError(f"{root}: has no {shown(file)}")
        return paths[file]

    return Files(paths, get)


def root_of(path: Path, file: str) -> Path:
    """Return the folder of a commit in the cache, which has its name, from the path of a file of the repository."""
    return path.parents[file.count("/")]


def _download(
    repository: str, file: str, revision: str | None, size: int, progress: Progress | None, *, force: bool = False
) -> Path:
    """Return the path of a file in the cache. Downloads it if needed, or if `force`; shows this unless it is small."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    options: dict[str, Any] = {"revision": revision, "force_download": force}
    if size < MB:
        return Path(_within_limit(lambda: hf_hub_download(repository, file, **options)))
    if progress is None:
        return Path(hf_hub_download(repository, file, **options))

    def begin() -> None:
        progress.note(f"downloading {repository}/{file}: {size // MB} MB")
        progress.start("download", size // MB, "MB")

    if "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        options["tqdm_class"] = _bar(begin, progress.advance)
    elif force or not isinstance(try_to_load_from_cache(repository, file, revision=revision), str):
        begin()  # huggingface_hub before 1.10 does not say how much it has
    try:
        return Path(hf_hub_download(repository, file, **options))
    finally:
        progress.finish()


def _bar(begin: Callable[[], None], advance: Callable[[int], None]) -> type[Any]:
    """Return a class in place of tqdm that shows nothing: a new bar calls `begin`, and each megabyte `advance`."""
    tqdm: Any = import_module("huggingface_hub.utils").tqdm

    def init(self: Any, *args: Any, **options: Any) -> None:
        tqdm.__init__(self, *args, **{**options, "disable": True})
        begin()
        advance(int(self.n // MB))  # of an earlier run

    def update(self: Any, count: float | None = 1) -> None:
        before, self.n = self.n, self.n + (count or 0)
        advance(int(self.n // MB - before // MB))

    def ignore(*_: Any, **__: Any) -> None:
        """Take what the client reports of the transfer, so that it makes no second bar for that."""

    transfer = dict.fromkeys(("update_transfer", "set_transfer_postfix_str"), ignore)
    return type("Bar", (tqdm,), {"__init__": init, "update": update, **transfer})


def _explain(name: HubName, error: BaseException, wanted: str) -> FailedError:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError | ValueError) and error.__cause__:
        error = error.__cause__  # what the client could not do comes second
    scheme, netloc, *_ = urlsplit(constants.ENDPOINT)
    host, by_hand = netloc.rpartition("@")[2], how_to_download(name)  # without a password
    status = getattr(getattr(error, "response", None), "status_code", None)
    kind: type[VaectlError] = UsageError
    also = ""
    if isinstance(error, errors.GatedRepoError):
        clause = f"{host} gives it only to users who have accepted its terms"
        remedy = f"accept them at {scheme}://{host}/{name.repository}, and {LOG_IN}"
    elif isinstance(error, errors.RepositoryNotFoundError):
        also, clause = MISSING, f"{host} has no such repository"
        remedy = f"check the name; if it is private, {LOG_IN}"
    elif isinstance(error, errors.RevisionNotFoundError):
        clause, remedy = f"{host} has no revision {name.revision} of it", "give a branch, a tag or a commit"
        remedy += ", after the folder" if "/" in (name.revision or "") else ""
    elif isinstance(error, errors.OfflineModeIsEnabled):
        also, clause = MISSING, "the cache of Hugging Face lacks it (HF_HUB_OFFLINE is set)"
        remedy = f"unset HF_HUB_OFFLINE, or {by_hand}"
    elif status in (401, 403):
        clause, remedy = f"{host} refuses access (status {status})", f"check your access, and {LOG_IN}"
    elif isinstance(error, OSError) and (error.filename or is_disk_shortage(error)):
        kind = VaectlError
        clause, remedy = cannot_write(error.filename or constants.HF_HUB_CACHE, error)
        remedy += ", with HF_HOME"
    else:
        kind, also = VaectlError, MISSING
        if ANSWERED & {each.__name__ for each in type(error).__mro__}:
            clause = f"{host} answered with something that is no {wanted}"
        elif status:
            clause = f"{host} answered with status {status}"
        else:
            clause = f"{host} cannot be reached ({_reason(error).replace(netloc, host)})"
        remedy = f"check the path or the network, or {by_hand}"
    return FailedError(clause, kind(f"{name}: {also}{clause}", remedy))


def _reason(error: BaseException) -> str:
    """Return the reason of the operating system, which HTTP libraries wrap in errors of their own."""
    cause: BaseException | None = error
    while cause is not None:
        if said := getattr(cause, "strerror", None) or (isinstance(cause, TimeoutError) and "timed out"):
            return str(said)
        cause = cause.__cause__ or cause.__context__
    lines = str(error).strip().splitlines()
    return shown(lines[0] if lines else type(error).__name__)
