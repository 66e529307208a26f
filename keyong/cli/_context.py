"""What commands share: the home, the client, the runtime, the language as others name it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from federation.errors import UsageError
from keyong.cli import _state
from keyong.text import language

if TYPE_CHECKING:
    from federation.home import Home
    from keyong.client import Client
    from sandbox import Runtime

_DURATION = re.compile(r"(\d{1,6})\s*(s|m|min|h|d|w)")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def open_home() -> Home:
    """The identity that this run acts as, its stores brought to this release."""
    from federation.home import Home, NoHomeError
    from keyong.cli._output import narrate
    from keyong.upgrading import upgrade

    path = _state.get().home
    if not (path / "identity.json").is_file():
        raise NoHomeError(
            "there is no identity in {path}",
            hint="found a consortium with `keyong consortium init`, or enter one with `keyong join INVITATION`; "
            "--home or KEYONG_HOME choose another folder",
            path=str(path),
        )
    home = Home(path)
    for done in upgrade(home):
        narrate(
            "{file} was migrated from revision {before} to {after}; as it was before, it is in {copy}",
            file=done.path.name,
            before=done.before,
            after=done.after,
            copy=done.copy,
        )
    return home


def open_client() -> Client:
    """A client of this home, to be used as a context."""
    from keyong.client import Client

    quiet_logs()
    state = _state.get()
    client = Client(open_home(), request=state.client.request if state.client is not None else "")
    state.client = client
    return client


def check_member(home: Home, name: str) -> None:
    """Refuse a name from the command line that no member has.

    Raises:
        UsageError: the newest roster does not hold it.
    """
    if name not in (member.id for member in home.history.latest.members):
        raise UsageError(
            "the roster has no member {member}",
            hint="see `keyong consortium roster`",
            code="no-such-member",
            member=name[:64],
        )


def newest_home() -> Home:
    """The identity, with the newest roster where the coordinator can be asked; said where it cannot."""
    from federation.errors import UnavailableError
    from keyong.cli._output import narrate

    try:
        with open_client() as client:
            return client.home
    except UnavailableError:
        home = open_home()
        version = home.history.latest.version
        narrate(
            "the coordinator cannot be reached: this is the roster as last seen here, version {version}",
            version=version,
        )
        return home


def load_runtime(name: str | None = None) -> Runtime:
    """The runtime that the settings name."""
    from keyong import runtime
    from keyong.cli.settings import load

    settings = load(runtime=name)
    return runtime.load(settings.runtime)


def quiet_logs() -> None:
    """Show warnings of the layers below only: a command's output is its own."""
    from keyong.cli._logging import configure

    configure("warning", "text")


def policy_language() -> Literal["en", "zh"]:
    """The language for sentences that come from the policy package."""
    return language()


def moment(text: str, now: datetime) -> datetime:
    """A time given as a date (its end, UTC), an instant, or a duration from now (``90d``, ``12h``, ``30min``, ``10s``).

    Raises:
        UsageError: it is none of these, or lies in the past.
    """
    given = text.strip().lower()
    if found := _DURATION.fullmatch(given):
        when = now + timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    else:
        try:
            when = datetime.fromisoformat(text.strip())
        except ValueError:
            raise UsageError(
                "{text} is neither a date nor a duration",
                hint="write 2027-06-30, 2027-06-30T12:00:00Z, 90d, 12h, 30min or 10s",
                text=text[:60],
            ) from None
        if len(given) == 10:
            when += timedelta(days=1)  # a date includes its day
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    if when <= now:
        raise UsageError("{text} lies in the past", hint="compare this machine's clock", text=text[:60])
    return when


def split_dataset(text: str) -> tuple[str, str]:
    """MEMBER/DATASET as its two parts."""
    member, slash, dataset = text.partition("/")
    if not (member and slash and dataset) or "/" in dataset:
        raise UsageError(
            "{text} does not name a dataset",
            hint="write MEMBER/DATASET, as `keyong catalog list` shows it",
            text=text[:130],
        )
    return member, dataset
