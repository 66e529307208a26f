"""Seconds of a search page over a long ledger: the server's own process, asked over its socket as a browser asks it.

The ledger has the entries of a node with many parties, agreements and jobs: INTENT and OUTCOME of every step, with their
fields and sizes. Searches are of every kind that the form has, common and rare terms together, on the first page and far back.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from federation.home import Home
from federation.ledger.writer import Appended
from federation.statements import Invocation, Receipt, sign
from keyong.bench.figure import Figure, percentile
from keyong.bench.history import PURPOSE, WINDOW, statement_bytes
from keyong.bench.progress import bar
from keyong.bench.rows import published
from keyong.demo.parties import DemoError, Party
from keyong.text import mark

ENTRIES, FULL_ENTRIES = 100_000, 1_000_000
PARTIES, DATASETS, AGREEMENTS, STEPS = 12, 8, 40, 100
"""Of the ledger that is made; ``STEPS`` of each job."""
ASKED = 240


def measure(entries: int = ENTRIES) -> list[Figure]:
    """Make a ledger of so many entries, serve its pages, and ask for searches of every kind."""
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name:
        founder = found(Path(name))
        with bar(mark("entries written")) as advance:
            write_steps(Home(founder.home), entries, advance)
        return asked(founder)


def found(folder: Path) -> Party:
    """A consortium of one, whose ledger is to be filled."""
    founder = Party(folder, "institute")
    founder.run(
        "consortium", "init", "--name", "Benchmark", "--member", "institute", "--entity", "Benchmark Institute",
        "--address", "127.0.0.1:1",
    )  # fmt: skip
    return founder


def asked(founder: Party) -> list[Figure]:
    """Serve the founder's ledger, wait until all of it can be searched, and measure."""
    with Home(founder.home).open_ledger() as ledger:
        size = ledger.size
    with _serving(founder) as fetch:
        began = time.perf_counter()
        while _total(fetch("/search")) < size:
            time.sleep(0.1)
        indexed = time.perf_counter() - began
        searches = list(_searches(size))
        for path in searches[: ASKED // 10]:
            fetch(path)  # templates compiled, files in the cache
        times = []
        for path in searches:
            start = time.perf_counter()
            fetch(path)
            times.append(time.perf_counter() - start)
        plain = []
        for number in range(20):
            start = time.perf_counter()
            fetch(f"/entry/{number * (size // 20)}")
            plain.append(time.perf_counter() - start)
    times.sort()
    return [
        published(
            "search-page-p95-seconds",
            percentile(times, 95),
            compared_with="a page of one entry, same run",
            other=statistics.median(plain),
            spread=(times[0], times[-1]),
            note=f"{len(times)} searches over {size:,} entries, one after another",
        ),
        Figure("search-page-p50-seconds", statistics.median(times), "s"),
        Figure(
            "search-index-seconds", indexed, "s", note=f"from the start of the pages until {size:,} entries are found"
        ),
    ]


def write_steps(home: Home, entries: int, advance: Any) -> None:
    """Append so many entries to the home's ledger: jobs of :data:`STEPS` steps, one after the other."""
    waiting: deque[Future[Appended]] = deque()
    key, member = home.key("statement"), home.identity.member
    with home.open_ledger() as ledger:
        at = start = ledger.size
        while at < start + entries:
            job = at // (2 * STEPS)
            payloads = statement_bytes(member, job, at)
            invocation = sign(key, Invocation.TYPE, payloads[0]).to_bytes()
            receipt = sign(key, Receipt.TYPE, payloads[1]).to_bytes()
            for step in range(min(STEPS, (start + entries - at + 1) // 2)):
                common = {"plan": f"sha256:{job:064x}", "dataset": f"dataset-{job % DATASETS}"}
                intent = {
                    **common, "invocation": invocation, "requester": f"member-{job % PARTIES}", "purpose": PURPOSE,
                    "agreement": f"sha256:{job % AGREEMENTS:064x}", "action": "fed:train", "code": "sha256:" + "c" * 64,
                    "round": step, "stage": "train", "protection": "fed:masked",
                }  # fmt: skip
                outcome = "failed" if (job + step) % 37 == 0 else "ok"
                ended = {**common, "receipt": receipt, "outcome": outcome, "code": "", "intent": at}
                waiting.append(ledger.submit("intent", intent))
                waiting.append(ledger.submit("outcome", ended, ref=at))
                at += 2
            while len(waiting) > WINDOW:
                waiting.popleft().result()
            advance(at - start, entries)
        for one in waiting:
            one.result()


def _searches(size: int) -> Iterator[str]:
    """Searches of every kind, each with other values."""
    for number in range(ASKED):
        party, dataset, agreement = f"member-{number % PARTIES}", f"dataset-{number % DATASETS}", number % AGREEMENTS
        job = number * 7919 % max(1, size // (2 * STEPS))
        kinds: tuple[dict[str, object], ...] = (
            {},
            {"party": party},
            {"party": party, "dataset": dataset, "kind": "intent"},
            {"agreement": f"sha256:{agreement:064x}", "outcome": "failed"},
            {"dataset": dataset, "outcome": "ok", "before": size // 2},
            {"job": f"{job:064x}"},
            {"q": f"{party} dataset-{(number + 1) % DATASETS}"},
            {"kind": "outcome", "outcome": "failed", "party": f"member-{(number + 1) % PARTIES}"},
            {"q": "member outcome", "before": size // 3},
            {"party": party, "since": "2020-01-01", "until": "2099-01-01"},
        )
        yield f"/search?{urlencode(kinds[number % len(kinds)])}"


def _total(page: str) -> int:
    return int(page.split('<p class="count"><b>')[1].split("<")[0].replace(",", ""))


@contextmanager
def _serving(founder: Party) -> Iterator[Any]:
    """The pages of a home, logged in to; yields what asks for one."""
    command = founder.command("--format", "json", "ledger", "serve", "--listen", "127.0.0.1:0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline() or "{}")
            if not ready:
                raise DemoError("`keyong ledger serve` ended with {exit}: {why}", exit=process.wait(), why="")
            link = urlsplit(ready["link"])
            connection = http.client.HTTPConnection(str(link.hostname), link.port)
            connection.request("GET", f"{link.path}?{link.query}")
            answer = connection.getresponse()
            cookie = str(answer.headers["set-cookie"]).split(";")[0]
            answer.read()

            def fetch(path: str) -> str:
                connection.request("GET", path, headers={"cookie": cookie})
                got = connection.getresponse()
                text = got.read().decode()
                if got.status != 200:
                    raise DemoError("{path} was answered with {status}", path=path, status=got.status)
                return text

            yield fetch
        finally:
            process.terminate()
