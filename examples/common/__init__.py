"""What the examples on real data share: a consortium played with real processes, and the picture of its figures."""

from examples.common.picture import bars
from examples.common.story import Participant, Training, federate, verify, write_figures

__all__ = ["Participant", "Training", "bars", "federate", "verify", "write_figures"]
