"""``keyong restore``: a home from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keyong.cli import _state
from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts, narrate, progress_bar
from keyong.text import mark

app = Commands()


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The backup's folder.")],
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file with the passphrase that opens the backup's keys.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A checkpoint of this ledger from elsewhere, such as ledger.checkpoint of the old disk; repeat it.",
        ),
    ] = None,
) -> None:
    """Make the home that --home names anew from a backup. It must not exist, or be empty.

    Every file is compared with the manifest and the whole ledger is verified before anything is in place. What happened after
    the backup is lost here, not elsewhere: others hold receipts and checkpoints. A ledger that is older than a checkpoint
    given with --checkpoint is refused, for it must not go on.

    $ keyong --home ~/mill-a restore /mnt/backups/mill-a-2027-06-30 --checkpoint /mnt/old-disk/ledger.checkpoint
    """
    from federation.errors import UsageError
    from keyong._backup_folder import read_passphrase
    from keyong.restoring import restore as make

    passphrase = None if keys is None else read_passphrase(keys.expanduser())
    notes = []
    for path in checkpoint or ():
        try:
            notes.append(path.expanduser().read_bytes())
        except OSError as error:
            raise UsageError("{path} cannot be read: {reason}", path=path, reason=error.strerror or "") from None
    with progress_bar(mark("verifying")) as progress:
        done = make(folder, _state.get().home, passphrase=passphrase, checkpoints=notes, progress=progress)
    if as_json():
        emit(
            {
                "home": str(done.home.path),
                "member": done.manifest.member,
                "taken": done.manifest.taken,
                "release": done.manifest.release,
                "entries": done.entries,
                "last_time": done.last_time,
                "keys": done.keys,
                "compared": len(notes),
            }
        )
        return
    facts(
        (
            ("home", done.home.path),
            ("member", done.manifest.member),
            ("taken", done.manifest.taken),
            ("ledger entries", done.entries),
            ("newest entry", done.last_time),
        )
    )
    narrate(
        "what was done after {time} is not here: uses of agreements, revocations, accepted entities, mail. Entries from"
        " number {entries} on, where there were any, are in receipts that others hold",
        time=done.manifest.taken,
        entries=done.entries,
    )
    if not notes:
        narrate(
            "no checkpoint from elsewhere was compared: before this home serves, ask the other members"
            " whether they hold an entry of {member} numbered {entries} or higher. If one does, this ledger must not go on",
            member=done.manifest.member,
            entries=done.entries,
        )
    if not done.keys:
        narrate(
            "the private keys are missing: put them back into {path} (0700, each file 0600)",
            path=done.home.path / "keys",
        )
