"""Files that are there whole or not at all, and directories that one process writes at a time."""

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

UNFINISHED = ".unfinished"  # the end of the name of what is beside a file; others are not ours to take away
LOCK = ".lock"  # in a directory that is being written; it stays, empty: what counts is who holds it


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one, never a part.

    It is written beside its place, synced, and renamed. A kill can leave what is beside: `unfinished`. A link still
    leads to the file, and who may read and write it stays as it was.
    Raises    ValueError, one line, where it cannot be written: no folder, no permission, no space
    """
    write_together({Path(path): content})


def write_together(contents: Mapping[Path, bytes | str]) -> None:
    """The same for files that belong together: none takes its place before all are written.

    Raises    ValueError as `write_whole`
    """
    with ExitStack() as stack:
        places = [(path, *stack.enter_context(_beside(path, content))) for path, content in contents.items()]
        for path, beside, target in places:
            with _one_line(path):
                os.replace(beside, target)


@contextmanager
def _beside(path: Path, content: bytes | str) -> Iterator[tuple[Path, Path]]:
    """The content in a file beside its place: its path, and its place. After an error it is gone, unless renamed."""
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with _one_line(path), open(beside, "xb") as file:
            if target.exists():
                os.chmod(beside, stat.S_IMODE(target.stat().st_mode))
            # a file's name, which is in many texts, need not be UTF-8
            file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        yield beside, target
    except BaseException:  # Ctrl-C may come right after the renaming
        beside.unlink(missing_ok=True)
        raise


def append_whole(path: str | os.PathLike[str], line: bytes) -> None:
    """Add a line to a file by one write; where that fails half way (a full disk), what was written is taken away again.

    Raises    ValueError as `write_whole`
    """
    with _one_line(path), open(path, "ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:
            file.truncate(before)
            raise


def may_be_written(folder: Path) -> bool:
    """Whether files may be made in a folder that is there."""
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def make_folder(path: Path, parents: bool = False) -> None:
    """Make a folder, if it is not there; with `parents` also those it is in.

    Raises    ValueError, one line, where it cannot be made: no permission, or something else is there
    """
    try:
        path.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{path}: cannot be made ({reason}); expected a folder, or a place for a new one") from None


def unfinished(path: Path) -> list[Path]:
    """What a killed `write_whole` of this file left beside it. Only who holds the directory may take it away."""
    target = Path(os.path.realpath(path))
    return list(target.parent.glob(f".{target.name}.*{UNFINISHED}"))


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold a directory for as long as this lasts. The system lets go of it when the process ends, however it ends.

    Raises    ValueError, one line, where another process holds it or it cannot be written
    """
    from filelock import FileLock, Timeout

    lock = FileLock(directory / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{directory}: another process is at work on it; expected to be the only one") from None
    except OSError as error:
        raise _cannot_be_written(directory, error) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _one_line(path: str | os.PathLike[str]) -> Iterator[None]:
    """The system's errors as a ValueError, one line."""
    try:
        yield
    except OSError as error:
        raise _cannot_be_written(path, error) from None


def _cannot_be_written(path: str | os.PathLike[str], error: OSError) -> ValueError:
    return ValueError(f"{os.fspath(path)}: cannot be written ({error.strerror or error})")
