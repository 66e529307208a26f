"""``keyong inbox``: what waits for an answer."""

from __future__ import annotations

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, narrate, table

app = Commands()


@app.command()
def inbox() -> None:
    """Read the mail, then show offers that wait for our signature and requests that wait for our answer.

    $ keyong inbox
    $ keyong agreement show 5f0c && keyong agreement sign 5f0c
    """
    from keyong.cli._agreements import document, short
    from keyong.cli._context import open_client

    with open_client() as client:
        new = client.read_mail()
        me = client.home.identity.member
        offers = [held for held in client.holdings.list("offered") if held.consumer == me]
        requests = [held for held in client.holdings.list("requested") if held.provider == me]
    if as_json():
        emit(
            {
                "new": new,
                "offers": [document(held) for held in offers],
                "requests": [document(held) for held in requests],
            }
        )
        return
    if not offers and not requests:
        narrate("nothing waits for an answer")
        return
    rows = [(short(held), "offer", held.provider, held.dataset, held.title) for held in offers]
    rows += [(short(held), "request", held.consumer, held.dataset, held.title) for held in requests]
    table(("id", "kind", "from", "dataset", "title"), rows)
    if offers:
        narrate("read an offer with `keyong agreement show ID`, accept it with `keyong agreement sign ID`")
    if requests:
        narrate("answer a request with `keyong agreement offer`, or leave it")
