"""The story, act by act. Everything happens through commands and serving processes, as it would between real companies."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keyong.cli._output import line, say, table
from keyong.demo import figures
from keyong.demo.consortium import agree, begin, two_at_a_time, until
from keyong.demo.parties import DemoError, Party, Service
from keyong.text import mark, translate, translate_data

APP = Path("examples/plate_mills/app")
PURPOSE = "fed:RollingForceModel"
OTHER_PURPOSE = "fed:Marketing"
BRIEF_PURPOSE = "fed:QualityControl"
MILLS = {
    "mill-a": "Anshan Demonstration Plate Mill",
    "mill-b": "Baotou Demonstration Plate Mill",
    "mill-c": "Chongqing Demonstration Plate Mill",
    "mill-d": "Dalian Demonstration Plate Mill",
}
"""Member ids and legal entities; the companies are made up, and their records are simulated."""
EXPIRY_SECONDS = 20
FAILURE_ROUNDS = 5  # so many that some are left however late a busy machine hears of the first
"""Of the job in which a mill is lost."""


class Story:
    """One playing of the demo.

    Args:
        folder: where everything is kept; made anew.
        seed: of the simulated records.
        rounds: of the training, or None for what the app says.
    """

    def __init__(self, folder: Path, seed: int, rounds: int | None) -> None:
        self.folder = folder
        self._seed = seed
        self._rounds = rounds
        self._began = time.monotonic()
        self._number = 0
        self.institute = Party(folder, "institute")
        self.mills = [Party(folder, name) for name in MILLS]
        self._records = folder / "records"
        self._logs = folder / "logs"
        self._fingerprint = ""
        self._job = ""

    def play(self) -> None:
        """Play all acts; raises :class:`DemoError` where one does not go as the story says."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in (self.folder, self._records):
            path.mkdir(mode=0o700)
        with ExitStack() as stack:
            self._found(stack)
            self._register()
            self._serve(stack)
            self._agree()
            self._train()
            self._compare()
            self._predict()
            self._refuse()
            self._drop_out(stack)
            self._refuse_what_is_over()
        self._verify()
        self._close()

    # -- acts ---------------------------------------------------------------------------------------------------------

    def _found(self, stack: ExitStack) -> None:
        with self._act(
            mark("An institute founds a consortium and coordinates it; four plate mills enter with invitations")
        ):
            self._fingerprint = begin(stack, self.institute, self.mills, "Plate Rolling Demonstration", MILLS)
            say("the root of trust everyone pins: {fingerprint}", fingerprint=self._fingerprint)
            for mill in self.mills:
                say("  {mill} has joined: its private keys were made at its own place and stay there", mill=mill.name)

    def _register(self) -> None:
        with self._act(
            mark("Each mill registers its own rolling records; what it publishes is the schema, never a value")
        ):
            say("these records are SIMULATED by a physical model of hot plate rolling (examples/plate_mills/README.md)")

            def register(mill: Party) -> None:
                letter = mill.name.removeprefix("mill-")
                subprocess.run(
                    [sys.executable, "-m", "examples.plate_mills.simulate", "--mill", letter, "--seed", str(self._seed),
                     "--out", str(self._records), "--format", "csv"],
                    check=True, capture_output=True,
                )  # fmt: skip
                mill.run(
                    "node", "dataset", "add", "passes", str(self._records / f"mill_{letter}.csv"),
                    "--title", "Plate rolling passes", "--title-zh", "中厚板轧制道次记录", "--simulated",
                )  # fmt: skip

            two_at_a_time(self.mills, register)
            for mill in self.mills:
                rows = mill.run("node", "dataset", "show", "passes")["rows"]
                say("  {mill}: {rows} passes, kept in its own folder", mill=mill.name, rows=rows)

    def _serve(self, stack: ExitStack) -> None:
        with self._act(mark("The nodes connect outward to the coordinator over mutual TLS 1.3; no mill opens a port")):
            services = [stack.enter_context(mill.serve("node", "serve", logs=self._logs)) for mill in self.mills]
            for service in services:
                service.wait_for("attached")
                say("  {mill} has tried its sandbox against forbidden acts, and is connected", mill=service.name)
            two_at_a_time(self.mills, lambda mill: mill.run("peers", "accept", "--all"))

    def _agree(self) -> None:
        with self._act(mark("Offers become agreements: signed by the mill, then by the institute")):
            agreements = self._agreements("60d", count=2)
            say("  {count} agreements are in force", count=len(agreements))
            first = agreements[0]["id"]
            self.institute.show("agreement", "show", first)
            line()
            say(
                "the mills' replies will be MASKED: the coordinator adds vectors that say nothing, and enough mills together "
                "open their sum; nobody sees one mill's update, not even coordinator and institute together"
            )

    def _agreements(
        self, expires: str, count: int, mills: list[Party] | None = None, purpose: str = PURPOSE
    ) -> list[dict[str, Any]]:
        chosen = mills or self.mills
        return agree(
            self.institute,
            chosen,
            dataset="passes",
            title="Rolling force model",
            purpose=purpose,
            app=APP,
            count=count,
            expires=expires,
        )

    def _train(self) -> None:
        with self._act(
            mark("A rolling-force model is trained across the mills: an ordinary Flower app, code pinned by digest")
        ):
            self._show_command("job", "run", str(APP), "--purpose", PURPOSE)
            self.institute.show(*self._job_arguments(self._rounds))
            self._job = self.institute.run("job", "list")[0]["job"]
            self.institute.run("job", "result", self._job, "-o", str(self.folder / "result"))

    def _job_arguments(self, rounds: int | None, purpose: str = PURPOSE, app: Path = APP) -> list[str]:
        config = ["--config", f"num-server-rounds={rounds}"] if rounds else []
        return ["job", "run", str(app), "--purpose", purpose, "--yes", *config]

    def _compare(self) -> None:
        with self._act(mark("Was it worth it? Each model on passes that no model has seen, of all mills")):
            say(
                "each mill's figures are computed by its owner on its own rows; the demo owns all ends, joins and pools them"
            )
            models = self.folder / "models"
            models.mkdir()
            records = sorted(str(path) for path in self._records.glob("mill_?.csv"))
            pooled = models / "pooled.safetensors"
            command = [
                sys.executable,
                "-m",
                "examples.plate_mills.pooled",
                "--out",
                str(pooled),
                "--seed",
                str(self._seed),
                *figures.as_many(self._rounds),
            ]
            with subprocess.Popen(
                [*command, *records], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as longest:
                figures.train_alone(self.mills, self._records, models, self._seed, self._rounds)
            if longest.returncode:
                raise subprocess.CalledProcessError(longest.returncode, command)
            named = {f"{mill.name} alone": models / f"{mill.name}.safetensors" for mill in self.mills}
            named |= {"federated": self.folder / "result" / "model.safetensors", "pooled": pooled}
            rows = figures.judge(self.mills, self._records, named, models)
            self._table(rows)
            (self.folder / "figures.json").write_text(json.dumps([row.__dict__ for row in rows]), encoding="utf-8")
            alone = max(row.share for row in rows if row.model.endswith("alone"))
            federated = next(row.share for row in rows if row.model == "federated")
            if federated <= alone and self._rounds is None:
                raise DemoError(
                    "federated ({federated:.1%}) does not beat the best mill alone ({alone:.1%})",
                    federated=federated,
                    alone=alone,
                )

    def _table(self, rows: list[figures.Row]) -> None:
        say("share of unseen passes predicted within 10 %, at each mill and over all; RMSE over all in kN")
        headings = ["trained", *(mill.name for mill in self.mills), "all", "RMSE kN"]
        table(
            headings,
            [[row.model, *(f"{s:.1%}" for s in row.shares), f"{row.share:.1%}", f"{row.rmse:.0f}"] for row in rows],
        )

    def _predict(self) -> None:
        with self._act(mark("The model comes out (the last mean of the mills' models), and predicts one pass")):
            model = self.folder / "result" / "model.safetensors"
            line(f"$ python -m examples.plate_mills.predict {model} --entry-thickness-mm 30 --exit-thickness-mm 25")
            command = [sys.executable, "-m", "examples.plate_mills.predict", str(model)]
            sys.stdout.flush()
            subprocess.run([*command, "--entry-thickness-mm", "30", "--exit-thickness-mm", "25"], check=True)

    def _drop_out(self, stack: ExitStack) -> None:
        with self._act(
            mark("A mill's power fails in the middle of a round; the others open the sum without it, exactly")
        ):
            gone, left = self.mills[-1], self.mills[:-1]
            say(
                "sums over different companies could be put together until one is left, so nodes open sums over one set; "
                "here the owners know the models to be long apart, and allow another:"
            )
            for mill in left:
                line(f"$ keyong --home {mill.home} node openings --allow passes")
            two_at_a_time(left, lambda mill: mill.run("node", "openings", "--allow", "passes"))
            arguments = self._job_arguments(FAILURE_ROUNDS)
            line("$ keyong " + " ".join(arguments))
            running = Service(
                self.institute.command("--format", "json", *arguments), self._logs / "drop-out.log", "drop-out"
            )
            with running:
                running.wait_for("round")
                assert gone.service is not None
                gone.service.kill()
                say("  {mill} is gone, without a word", mill=gone.name)
                fell = running.wait_for("fell-out")["data"]["round"]
                running.wait_for("end")
                rounds = [one["data"] for one in running.told("round")]
            rows = {mill.name: int(mill.run("node", "dataset", "show", "passes")["rows"]) for mill in self.mills}
            expected = sum(rows[mill.name] for mill in left)
            after = [one for one in rounds if one["exchange"] >= fell and one["participants"] == len(left)]
            if not after or any(one["total_weight"] != expected for one in after):
                raise DemoError("the rounds after the failure are not those of the mills that were left")
            say(
                "  exchange {number} was opened by {count} mills; its masked weights add up to exactly {weight} passes, theirs",
                number=after[0]["exchange"],
                count=len(left),
                weight=expected,
            )
            gone.service = stack.enter_context(gone.serve("node", "serve", logs=self._logs))
            gone.service.wait_for("attached")

    def _refuse(self) -> None:
        with self._act(mark("What nobody agreed to does not happen: each refusal names its clause, exit code 3")):
            self._refusal(mark("another purpose"), self._job_arguments(1, purpose=OTHER_PURPOSE))
            changed = self.folder / "changed-app"
            shutil.copytree(APP, changed, ignore=shutil.ignore_patterns("__pycache__"))
            model = changed / "rolling" / "client_app.py"
            model.write_text(model.read_text(encoding="utf-8") + "# one changed line\n", encoding="utf-8")
            self._refusal(mark("one changed line of code"), self._job_arguments(1, app=changed))

    def _refuse_what_is_over(self) -> None:
        with self._act(mark("What was agreed is used up, or over: two more refusals")):
            say("three mills sign agreements for {seconds} seconds only", seconds=EXPIRY_SECONDS)
            brief = self._agreements(f"{EXPIRY_SECONDS}s", 5, self.mills[:3], purpose=BRIEF_PURPOSE)
            self._refusal(mark("uses exhausted"), self._job_arguments(1))
            end = max(datetime.fromisoformat(agreement["expires"]) for agreement in brief)
            until(lambda: datetime.now(UTC) > end, "time stands still for {name}", "the demo")
            datasets = [part for mill in self.mills[:3] for part in ("--dataset", f"{mill.name}/passes")]
            arguments = [*self._job_arguments(1, purpose=BRIEF_PURPOSE), *datasets]
            self._refusal(mark("an agreement that has expired"), arguments)

    def _refusal(self, what: str, arguments: list[str]) -> None:
        """Run a job that must be refused, and tell what the first node said; the others say the same."""
        line()
        say("{what}:", what=translate_data(what))
        line("$ keyong " + " ".join(arguments))
        code, told = self.institute.listen(*arguments)
        if code != 3:
            raise DemoError("a job that must be refused ended with {exit}", exit=code)
        begins = translate("error: {message}", message="").strip()
        errors = [number for number, text in enumerate(told) if text.startswith(begins)]
        for text in told[errors[0] : errors[0] + 2]:
            line(f"  {text}")
        if len(errors) > 1:
            say("  ({count} nodes refused alike)", count=len(errors))
        line(f"  -> exit {code}")

    def _verify(self) -> None:
        with self._act(mark("An auditor verifies every ledger with its folder, a fingerprint and no network")):
            for party in (self.institute, *self.mills):
                line(f"$ keyong verify {party.home} --root {self._fingerprint[:20]}…")
                party.show("verify", str(party.home), "--root", self._fingerprint)
            say("one byte is changed in a copy of mill-a's ledger:")
            copy = self.folder / "tampered"
            shutil.copytree(self.mills[0].home / "ledger", copy / "ledger")
            shutil.copytree(self.mills[0].home / "rosters", copy / "rosters")
            index = _change_one_byte(copy / "ledger" / "ledger.db")
            say("  (entry {index}, one byte of its bytes)", index=index)
            code = self.mills[0].show("verify", str(copy), "--root", self._fingerprint, expect=4)
            line(f"  -> exit {code}")

    def _close(self) -> None:
        seconds = time.monotonic() - self._began
        line()
        say(
            "that was the whole story, in {seconds:.0f} s. Its state is in {folder}; look further with:",
            seconds=seconds,
            folder=str(self.folder),
        )
        home = self.mills[0].home
        for text in (
            f"keyong --home {home} ledger show --last 20",
            f"keyong --home {home} agreement list --all",
            f"keyong --home {self.institute.home} job list     (needs: keyong --home {self.institute.home} coordinator serve)",
            f"keyong verify {home} --root {self._fingerprint}",
        ):
            line(f"  {text}")

    # -- telling ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _act(self, title: str) -> Iterator[None]:
        self._number += 1
        line()
        line(f"== {self._number}. {translate_data(title)}  [{time.monotonic() - self._began:.0f} s]")
        yield

    def _show_command(self, *arguments: str) -> None:
        line("$ keyong " + " ".join(arguments))


def _change_one_byte(database: Path) -> int:
    """Flip one bit in the middle of an entry's bytes; returns its index."""
    with sqlite3.connect(database) as connection:
        count = connection.execute("SELECT count(*) FROM entry").fetchone()[0]
        index = int(count) // 2
        data = bytearray(connection.execute("SELECT data FROM entry WHERE idx = ?", (index,)).fetchone()[0])
        data[len(data) // 2] ^= 1
        connection.execute("UPDATE entry SET data = ? WHERE idx = ?", (bytes(data), index))
    return index
