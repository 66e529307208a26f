"""``keyong inbox``: what waits for an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, narrate, table
from keyong.text import translate

if TYPE_CHECKING:
    from enterprise_node.approvals import Approval
    from enterprise_node.held import HeldHead, HeldRow
    from keyong.client import Client

app = Commands()


@app.command()
def inbox() -> None:
    """Read the mail, then show what waits for us: offers for a signature, requests for an answer, and at a data's owner code
    for an approval and outputs for a review.

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
        code, outputs = _owners_word(client)
    if as_json():
        emit(
            {
                "new": new,
                "offers": [document(held) for held in offers],
                "requests": [document(held) for held in requests],
                "approvals": [one.id for one in code],
                "reviews": [row.invocation for row, _ in outputs],
            }
        )
        return
    if not (offers or requests or code or outputs):
        narrate("nothing waits for an answer")
        return
    rows = [(short(held), translate("offer"), held.provider, held.dataset, held.title) for held in offers]
    rows += [(short(held), translate("request"), held.consumer, held.dataset, held.title) for held in requests]
    rows += [(one.name, translate("code"), one.requester, "", one.app) for one in code]
    rows += [
        (row.name, translate("output"), head.requester, f"{me}/{head.dataset}", head.purpose) for row, head in outputs
    ]
    table(("id", "kind", "from", "dataset", "title"), rows)
    if offers:
        narrate("read an offer with `keyong agreement show ID`, accept it with `keyong agreement sign ID`")
    if requests:
        narrate("answer a request with `keyong agreement offer`, or leave it")
    if code:
        narrate("read code with `keyong node approvals show ID`, then grant or refuse it")
    if outputs:
        narrate("look at an output with `keyong node review show ID`, then release or refuse it")


def _owners_word(client: Client) -> tuple[list[Approval], list[tuple[HeldRow, HeldHead]]]:
    """The code and the outputs that wait for this home's owner; none where it was never a node's."""
    if not (client.home.path / "approvals").is_dir():  # no node ever served it
        return [], []
    from enterprise_node.approvals import Approvals
    from enterprise_node.held import HeldOutputs

    held = HeldOutputs(client.home, client.ledger)
    code = [one for one in Approvals(client.home, client.ledger).known() if one.state == "waiting"]
    outputs = [(row, held.head(row)) for row in held.rows() if not row.decision]
    return code, outputs
