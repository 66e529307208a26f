"""Named sets of privacy parameters, each with where it comes from.

A profile is what an owner starts from; every number can be set for a dataset by itself (`keyong budget set`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """Parameters that fit together.

    Attributes:
        dataset: micro-rho that all parties together may spend on a dataset in a calendar quarter.
        requester: micro-rho that one party may spend on a dataset, over all quarters.
        query: micro-rho of one query that says nothing else.
        delta: at which epsilon is reported, a decimal string.
        source: where the numbers come from.
    """

    name: str
    dataset: int
    requester: int
    query: int
    delta: str
    source: str


STANDARD = Profile(
    "standard",
    dataset=500_000,
    requester=100_000,
    query=5_000,
    delta="0.000001",
    source="epsilon 5.2 a quarter at delta 1e-6, within what Ponomareva et al. 2023 (arXiv 2303.00654, section 5.2) call "
    "reasonable (10 at most); a count has sigma 10, the size of the smallest cell that is shown (ACRO)",
)
STRICT = Profile(
    "strict",
    dataset=18_000,
    requester=9_000,
    query=500,
    delta="0.000001",
    source="epsilon 0.85 a quarter at delta 1e-6, within what the same paper calls a strong guarantee (1 at most)",
)
TEST_ONLY = Profile(
    "test-only",
    dataset=1_000_000_000,
    requester=1_000_000_000,
    query=1_000_000,
    delta="0.000001",
    source="no protection worth the name: for trying things out with made-up data",
)

PROFILES = {profile.name: profile for profile in (STANDARD, STRICT, TEST_ONLY)}
