"""Protocol versions: both ends announce a range; they speak the highest both know, or say who has to upgrade."""

from __future__ import annotations

from federation.errors import UnavailableError

PROTOCOL = (1, 4)
"""Lowest and highest version spoken here. Adjacent versions work together; the lowest rises one release later.

Since 2 a content is named by the digests of its header and its body (``Invoke.body``), and a body that the node holds is
not sent again. Since 3 replies can be masked: before that, a plan that wants masks is refused.
Since 4 more than 64 replies can be masked together.
"""
BODY_NAMED = 2
MASKS = 3
NEIGHBOURHOODS = 4
ALL_WITH_ALL = 64
"""Most nodes under masks before neighbourhoods."""


class ProtocolVersionError(UnavailableError):
    """The two ends of a link speak no common protocol version."""

    code = "protocol-version"


def negotiate(member: tuple[int, int], coordinator: tuple[int, int] = PROTOCOL) -> int:
    """The version to speak; raises :class:`ProtocolVersionError` naming the side to upgrade where there is none."""
    version = min(member[1], coordinator[1])
    if version >= max(member[0], coordinator[0]):
        return version
    raise ProtocolVersionError(
        "no common protocol version: the member speaks {low} to {high}, the coordinator {our_low} to {our_high}",
        hint="upgrade {older}",
        low=member[0],
        high=member[1],
        our_low=coordinator[0],
        our_high=coordinator[1],
        older="the member" if member[1] < coordinator[0] else "the coordinator",
    )


def check_version(version: int) -> None:
    """Refuse a version the other end chose that is not spoken here."""
    if not PROTOCOL[0] <= version <= PROTOCOL[1]:
        raise ProtocolVersionError(
            "the coordinator speaks protocol version {version}, this member {low} to {high}",
            hint="upgrade {older}",
            version=version,
            low=PROTOCOL[0],
            high=PROTOCOL[1],
            older="the member" if version > PROTOCOL[1] else "the coordinator",
        )
