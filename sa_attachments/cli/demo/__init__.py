"""The command ``demo``: the main job on real files, shown scene by scene, each checked."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click

from sa_attachments.cli import answer
from sa_attachments.cli.failure import Failure
from sa_attachments.cli.progress import bars

from . import original
from .performance import Performance, perform
from .playground import Playground
from .scenes import SCENES, Cast
from .screen import Screen


@answer.command("What happens to files when transactions end, shown on real ones.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Leave database, files and the application in this folder, which must be empty or not there yet.",
)
def demo(files: tuple[Path, ...], keep: Path | None, as_json: bool) -> int:
    """Show on FILES, or on a few that come along, what happens to files when transactions end.

    It makes an SQLite database and a folder, and commits, rolls back, replaces, takes back, and really kills a
    process between storing and commit. After each scene it shows what lies on disk and what the ledger says, and
    checks both. Your own files are only read. It takes a few seconds.

    Exit code 1 if something does not hold; 2 if one of FILES is not there, or is no regular file.

    \b
    Examples:
      sa-attachments demo
      sa-attachments demo ~/Pictures/*.jpg --keep here
    """
    with ExitStack() as stack:
        with bars({"reading": len(files)}) as progress:
            originals = []
            for path in files:
                originals.append(original.of(path))
                progress("reading", 1)
        samples = original.packaged(stack)
        originals = originals or samples
        cast = Cast(originals, originals[0], original.other_than(originals[0], [*originals, *samples]))
        playground = Playground(_folder(keep, stack))
        stack.callback(playground.close)
        return _play(playground, cast, keep, as_json)


def _play(playground: Playground, cast: Cast, keep: Path | None, as_json: bool) -> int:
    began = time.monotonic()
    screen = None if as_json else Screen(answer.console(), playground.source)
    if screen:
        screen.begin(list(cast.originals))
    performances: list[Performance] = []
    scenes = perform(playground, cast)
    for number, scene in enumerate(SCENES, 1):
        with bars() as progress:
            progress(scene.title, 0)  # Large files take a while.
            performances.append(next(scenes))
        if screen:
            screen.show(number, performances[-1])
    ok = all(performance.ok for performance in performances)
    kept = None if keep is None else str(playground.folder)
    if screen:
        screen.end(performances, time.monotonic() - began, kept)
    else:
        answer.document({"ok": ok, "kept": kept, "scenes": [performance.document() for performance in performances]})
    return 0 if ok else 1


def _folder(keep: Path | None, stack: ExitStack) -> Path:
    if keep is None:
        temporary = tempfile.TemporaryDirectory(prefix="sa-attachments-", ignore_cleanup_errors=True)
        return Path(stack.enter_context(temporary))
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise Failure(f"{str(keep)!r} is not empty: name a folder that is, or a new one")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise Failure(f"{str(keep)!r} can't be used: {why}") from error
    return keep
