"""The root command: groups are imported when they are named, never before."""

from __future__ import annotations

from importlib import import_module

import click

from keyong.cli._commands import Group, build
from keyong.text import mark

SUMMARY = """Federated work on data that never leaves its company, with every use on record.

A founder runs `consortium init`, others `join` with an invitation; members register data with `node dataset add`, offer
agreements, and run `node serve`; analysts run jobs under agreements; auditors `verify` each ledger and `audit` several.

$ keyong demo
$ keyong consortium init --name Plates --member institute --entity "Rolling Institute" --address 10.0.0.5:7443
$ keyong job run ./app --purpose fed:RollingForceModel"""

GROUPS: dict[str, tuple[str, str]] = {
    "consortium": ("keyong.cli.consortium", mark("Found a consortium, invite and remove members, show its roster.")),
    "join": ("keyong.cli.join", mark("Enter a consortium with an invitation.")),
    "whoami": ("keyong.cli.whoami", mark("Show this identity: member, roles, keys and the pinned root.")),
    "keys": ("keyong.cli.keys", mark("Show this party's keys and since when they are in force, and exchange them.")),
    "peers": ("keyong.cli.peers", mark("Choose which legal entities count toward this node's minimum.")),
    "inbox": ("keyong.cli.inbox", mark("Show what waits for an answer: offers to sign, requests to answer.")),
    "catalog": ("keyong.cli.catalog", mark("See what nodes publish: datasets and their schema, without values.")),
    "node": ("keyong.cli.node", mark("Run this company's node, its datasets and its runtime.")),
    "coordinator": ("keyong.cli.coordinator", mark("Run the coordinator, or ask how it stands.")),
    "agreement": ("keyong.cli.agreement", mark("Offer, request, sign, read and end agreements.")),
    "dataspace": (
        "keyong.cli.dataspace",
        mark("Publish and read catalogs of the Dataspace Protocol, and answer it."),
    ),
    "negotiation": ("keyong.cli.negotiation", mark("Negotiate agreements by the Dataspace Protocol.")),
    "transfer": (
        "keyong.cli.transfer",
        mark("Ask for, start and stop the right to run jobs under an agreement; no data moves."),
    ),
    "job": ("keyong.cli.job", mark("Check, run and follow jobs, and fetch their results.")),
    "query": ("keyong.cli.query", mark("Ask an aggregate question of many companies' rows, sealed.")),
    "score": ("keyong.cli.score", mark("Score a model on another company's rows; its weights stay encrypted.")),
    "intersect": ("keyong.cli.intersect", mark("Ask how many keys two companies have in common.")),
    "budget": (
        "keyong.cli.budget",
        mark("See what of our datasets' privacy budgets is spent, and set where they end."),
    ),
    "ledger": ("keyong.cli.ledger", mark("Read this party's ledger, and export it for an auditor.")),
    "verify": ("keyong.cli.verify", mark("Verify a ledger offline, against the root fingerprint you hold.")),
    "audit": ("keyong.cli.audit", mark("Hold several parties' ledgers against one another, offline.")),
    "backup": ("keyong.cli.backup", mark("Copy this home into a folder, also while it serves.")),
    "restore": ("keyong.cli.restore", mark("Make a home anew from a backup, everything verified first.")),
    "doctor": ("keyong.cli.doctor", mark("Check what this machine needs to run jobs, and say how to repair it.")),
    "demo": ("keyong.demo.cli", mark("Play the whole story on this machine, with real processes.")),
    "bench": ("keyong.bench.cli", mark("Measure, and compare with the published targets.")),
}


class Root(Group):
    """The root: knows its groups by name and sentence alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(GROUPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = GROUPS.get(cmd_name)
        if entry is None:
            return None
        command = build(import_module(entry[0]).app)
        command.name = cmd_name
        return command

    def summaries(self, ctx: click.Context) -> list[tuple[str, str]]:
        return [(name, summary) for name, (_, summary) in GROUPS.items()]


def root() -> click.Command:
    """The root command."""
    version = click.version_option(package_name="keyong", message="%(prog)s %(version)s", help="Show the version.")
    command: click.Command = version(Root(name="keyong", help=SUMMARY, no_args_is_help=True, rich_markup_mode=None))
    return command
