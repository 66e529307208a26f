"""Settings: ``config.toml`` of the home, below the environment (``KEYONG_…``), below the command line."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from federation.errors import UsageError
from keyong.cli import _state

if TYPE_CHECKING:
    from coordinator.dataspace import Dataspace
    from coordinator.recording import Room

LogLevel = Literal["debug", "info", "warning", "error"]


class SettingsError(UsageError):
    """A setting does not hold."""

    code = "settings"


class Settings(BaseSettings):
    """What a person can set; each field is ``KEYONG_<NAME>`` in the environment and ``<name>`` in ``config.toml``."""

    model_config = SettingsConfigDict(env_prefix="KEYONG_", extra="forbid", frozen=True)

    home: Path = Path("~/.keyong")
    """The folder that holds the identity (not settable in the file that lies in it)."""
    lang: Literal["", "en", "zh"] = ""
    """Language of what people read; empty for the locale's."""
    format: Literal["text", "json"] = "text"
    """Form of data on stdout."""
    listen: Annotated[str, Field(max_length=255)] = ""
    """host:port that ``coordinator serve`` binds; empty for the address in the roster."""
    runtime: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")] = "torch"
    """Name of the runtime that jobs run in."""
    runtimes: Path | None = None
    """Folder of the runtimes; by default with the installation."""
    log_level: LogLevel = "info"
    """How much a serving process logs."""
    log_format: Literal["", "text", "json"] = ""
    """Form of the logs on stderr; empty for text on a terminal and JSON elsewhere."""
    waiting_workers: Annotated[int, Field(ge=0, le=64)] = 1
    """How many workers a node keeps started and waiting for a job; each holds some 325 MB and saves a job's start some
    seconds."""
    observe: Annotated[str, Field(max_length=255)] = ""
    """host:port for metrics and health over HTTP; empty for none."""
    observe_anywhere: bool = False
    """Whether that address may be one that other machines reach; what is shown there has no login."""
    dataspace: Annotated[str, Field(max_length=255)] = ""
    """host:port that ``coordinator serve`` binds for the Dataspace Protocol; empty for none."""
    dataspace_url: Annotated[str, Field(max_length=255)] = ""
    """Where members reach that, as ``https://HOST:PORT`` with the coordinator's host of the roster; empty for the port that
    is bound."""
    drain: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 25.0
    """Seconds that what runs may take to end after SIGTERM: below what Kubernetes (30) and systemd (90) wait by default
    before they kill. Docker waits 10: give it more (`stop_grace_period`), or drain less."""

    recording_gib: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    """Of the coordinator's disk, what the recording of one job may take, in GiB; 64 by default. A larger job goes on
    without one, and cannot be resumed; 0 keeps none."""
    recordings_gib: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    """What the recordings of all interrupted jobs may take together, in GiB; 128 by default. Beyond it the oldest go when
    the coordinator starts."""

    def observed(self) -> tuple[str, int] | None:
        """Where to serve metrics and health; None for nowhere.

        Raises:
            UsageError: it is no address, or one that others reach, and that is not allowed.
        """
        from federation.observability import check_address

        return check_address(self.observe, anywhere=self.observe_anywhere) if self.observe else None

    def gateway(self) -> Dataspace | None:
        """Where to serve the Dataspace Protocol; None for nowhere."""
        from coordinator.dataspace import Dataspace
        from federation.observability import check_address

        if not self.dataspace:
            return None
        host, port = check_address(self.dataspace, anywhere=True)
        return Dataspace(host, port, self.dataspace_url)

    def room(self) -> Room:
        """What a coordinator's recordings may take of its disk."""
        from coordinator.recording import Room

        given = {"job": self.recording_gib, "together": self.recordings_gib}
        return Room(**{name: int(gib * 2**30) for name, gib in given.items() if gib is not None})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags first, then the environment, then the file."""
        file = TomlConfigSettingsSource(settings_cls, _state.get().home / _state.CONFIG)
        return init_settings, env_settings, file


def load(**flags: Any) -> Settings:
    """The settings of this run; flags that were not given are None and do not count.

    Raises:
        SettingsError: a value is not allowed, a name is not known, or the file is not TOML.
    """
    state = _state.get()
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(**{**state.flags, **given, "home": state.home})
        if settings.runtimes is not None:
            os.environ["KEYONG_RUNTIMES"] = str(settings.runtimes.expanduser())
        return settings
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SettingsError(
            "the setting {name} does not hold: {why}",
            hint="it comes from {file}, or from the environment (KEYONG_{upper})",
            name=".".join(str(part) for part in first["loc"]),
            why=first["msg"],
            file=state.home / _state.CONFIG,
            upper=str(first["loc"][0]).upper() if first["loc"] else "",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            "{file} is not TOML: {why}", file=state.home / _state.CONFIG, why=str(error)[:200]
        ) from None
