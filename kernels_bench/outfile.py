"""The measurements file that an option names: whether it can be written is found before anything is measured."""

from pathlib import Path

import typer


def writable(path: Path | None) -> Path | None:
    """The path as it is.

    Raises
    ------
    typer.BadParameter
        It cannot be written. A file that was not there is not left behind, and one that was is not changed.
    """
    if path is None:
        return None
    if not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}; make it first, or name another")
    there = path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}") from error
    if not there:
        path.unlink()
    return path
