"""What a node publishes about a dataset: its schema without values."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from federation.statements._base import (
    Count,
    DatasetId,
    Decimal,
    Digest,
    Label,
    MemberId,
    OptionalDigest,
    Part,
    Statement,
)

REMEMBERED_BYTES: Final = 64 * 1024
"""Of a description that is read once and kept: read with every step of a job, of the same bytes."""
ColumnType = Literal["integer", "number", "text", "boolean", "timestamp", "date"]


class Column(Part):
    """One column: name, type and whatever bounds the owner chose to declare."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f\"]+$")]
    type: ColumnType
    nullable: bool = False
    unit: Annotated[str, StringConstraints(max_length=40)] = ""
    description: Annotated[str, StringConstraints(max_length=400)] = ""
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    categories: Annotated[tuple[Label, ...], Field(max_length=1000)] = ()


class DatasetDescription(Statement):
    """A catalog entry, signed by the owner. Row counts are published as a bucket, never exactly."""

    TYPE: ClassVar[str] = "application/vnd.keyong.dataset.v1+json"
    LATER: ClassVar[tuple[str, ...]] = ("rules", "live", "files", "unit_rows", "least_subjects", "rounding")

    provider: MemberId
    dataset: DatasetId
    title: Label
    title_zh: Annotated[str, StringConstraints(max_length=200)] = ""
    description: Annotated[str, StringConstraints(max_length=4000)] = ""
    description_zh: Annotated[str, StringConstraints(max_length=4000)] = ""
    data_version: Digest
    """Digest of source fingerprint and schema as registered; changes with either."""
    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=2000)]
    rows_at_least: Count
    rows_at_most: Count
    simulated: bool = False
    industry: Annotated[str, StringConstraints(max_length=20)] = ""
    """GB/T 4754 code, empty where not given."""
    level: Annotated[str, StringConstraints(pattern=r"^(L[1-5])?$")] = ""
    privacy_unit: Annotated[str, StringConstraints(max_length=128)] = ""
    """Column whose values tell apart whom differential privacy protects; empty where each row is one by itself."""
    unit_rows: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Most rows of one privacy unit that a job or query sees, the rest being left out; 0 where no unit is declared."""
    least_subjects: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Fewest distinct subjects in a query's cell without noise, where the owner demands more than the rules of all."""
    rounding: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Counts of rows in a query without noise are rounded to multiples of it before they are added; 0 for none."""
    rules: OptionalDigest = ""
    """Digest of the owner's desensitisation rules; the columns are as they are after them. Empty where there are none."""
    live: bool = False
    """The rows come from a database and are read anew for each job; the data version fixes the query, not the rows."""
    files: bool = False
    """Each row stands for a file, which a job finds under ``files/`` by the name in the column ``file``."""

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Parse stored bytes; those that were read before give the very same description, which nobody can change."""
        if cls is not DatasetDescription or len(payload) > REMEMBERED_BYTES:
            return super().from_payload(payload)
        return _remembered(payload)  # type: ignore[return-value]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError("two columns share a name")
        if self.rows_at_least > self.rows_at_most:
            raise ValueError("rows_at_least exceeds rows_at_most")
        return self


@lru_cache(maxsize=256)
def _remembered(payload: bytes) -> DatasetDescription:
    return super(DatasetDescription, DatasetDescription).from_payload(payload)


def row_bucket(rows: int) -> tuple[int, int]:
    """The published bounds of a row count: the two-significant-digit bucket around it (20,431 -> 20,000 to 21,000)."""
    if rows < 10:
        return (0, 10)
    step = int(10 ** (len(str(rows)) - 2))
    low = rows // step * step
    return (low, low + step)
