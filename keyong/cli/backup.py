"""``keyong backup``: a copy of the home while it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts, narrate, progress_bar
from keyong.text import mark

app = Commands()


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the backup, outside the home.")],
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Include the private keys, encrypted with the passphrase in this file (first line, mode 0600).",
        ),
    ] = None,
) -> None:
    """Copy this home into a new folder: identity, rosters, ledger, stores, jobs and results. It may serve meanwhile.

    Private keys are left out unless --keys is given: without them a backup is no identity, with them and the passphrase
    it is this party. Snapshots of data, logs and older copies of stores stay behind.

    $ keyong --home ~/mill-a backup /mnt/backups/mill-a-2027-06-30
    """
    from keyong._backup_folder import read_passphrase
    from keyong.backing_up import back_up
    from keyong.cli._context import open_home

    home = open_home()
    passphrase = None if keys is None else read_passphrase(keys.expanduser())
    with progress_bar(mark("copying")) as progress:
        manifest = back_up(home, folder, passphrase=passphrase, progress=progress)
    size = sum(file.size for file in manifest.files)
    if as_json():
        emit(
            {
                "folder": str(folder.expanduser().absolute()),
                "member": manifest.member,
                "taken": manifest.taken,
                "files": len(manifest.files),
                "bytes": size,
                "entries": manifest.entries,
                "keys": manifest.keys,
            }
        )
        return
    facts(
        (
            ("folder", folder.expanduser().absolute()),
            ("member", manifest.member),
            ("taken", manifest.taken),
            ("files", len(manifest.files)),
            ("bytes", size),
            ("ledger entries", manifest.entries),
            ("keys", "sealed" if manifest.keys else "-"),
        )
    )
    if manifest.keys:
        narrate("this backup and its passphrase together are {member}: keep them apart", member=manifest.member)
    else:
        narrate(
            "the private keys are not in it: keep a copy of {path} where only you can read it", path=home.path / "keys"
        )
