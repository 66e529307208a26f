"""Why a bilateral action is not planned, not answered, or its answer not believed."""

from __future__ import annotations

from federation.errors import DeniedError, KeyongError, UsageError, VerificationError


class BilateralPlanError(DeniedError):
    """A plan asks for something that a bilateral action does not give, or states another cost than it has."""

    code = "bilateral-plan"


class BilateralFailedError(KeyongError):
    """A node could not compute its part."""

    code = "bilateral-failed"


class BilateralVoidError(VerificationError):
    """What came back is no answer to what was asked."""

    code = "bilateral-void"


class WeightsError(UsageError):
    """A model's weights are not ones that can be scored."""

    code = "weights"
