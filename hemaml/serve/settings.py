"""What `hemaml serve` can be told, by options and by the environment; checked once, here."""

import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from hemaml.core.documents import override, validated
from hemaml.core.errors import ConfigError
from hemaml.core.types import Frozen
from hemaml.data.decode import MAX_PIXELS

PREFIX = "HEMAML_SERVE_"
"""Of the environment variables; a setting's name in capitals follows."""
MIB = 1 << 20
LEAST_TOKEN = 16
"""Characters: a shorter one can be guessed."""
Origin = Annotated[str, Field(pattern=r"^https?://[^/\s]+$")]


class ServeSettings(Frozen):
    """Of one server."""

    host: str = Field(default="127.0.0.1", description="The address to listen at.")
    port: int = Field(default=8000, ge=0, le=65535, description="0 for any that is free.")
    models: tuple[str, ...] = Field(
        default=(),
        description="Names, models:/name@alias or models:/name/version; none: every champion.",
    )
    token: SecretStr | None = Field(default=None, description="What clients must send as Bearer.")
    open: bool = Field(
        default=False, description="Whether others than this machine may ask without a token."
    )
    origins: tuple[Origin, ...] = Field(
        default=(), description="Addresses of other pages that browsers may let ask (CORS)."
    )
    hosts: tuple[str, ...] = Field(
        default=(), description="Names by which it may be asked besides those of this machine."
    )
    bytes: int = Field(default=32 * MIB, ge=1024, le=1024 * MIB, description="Of a request.")
    pixels: int = Field(default=25_000_000, ge=1, le=MAX_PIXELS, description="Of an image.")
    images: int = Field(default=32, ge=1, le=1000, description="Of a request.")
    requests_per_minute: int = Field(
        default=600, ge=1, le=1_000_000, description="Predictions and explanations of one address."
    )
    queue: int = Field(
        default=32, ge=1, le=1000, description="Requests that wait or are worked on; more get 503."
    )
    connections: int = Field(default=128, ge=1, le=10_000, description="Open at once.")
    look_every: float = Field(
        default=5, ge=0.05, le=3600, description="Seconds between looks at the registry's aliases."
    )

    @field_validator("models", "origins", "hosts", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """A text from the environment is a list with commas."""
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.token is not None and len(self.token.get_secret_value()) < LEAST_TOKEN:
            raise ValueError(
                f"a token has at least {LEAST_TOKEN} characters, but this one is shorter. "
                "Make one by `openssl rand -hex 32`."
            )
        if self.token is None and not self.open and not is_loopback(self.host):
            raise ValueError(
                f"whoever can reach {self.host} could ask without a token. Set {PREFIX}TOKEN or "
                "--token-file, listen at 127.0.0.1, or say --open if that is what you want"
            )
        return self


LOOPBACK = ("localhost", "127.0.0.1")


def trusted_hosts(settings: ServeSettings) -> list[str] | None:
    """The names by which a server without a token may be asked; None for any.

    A page of a stranger may give its own name the address of this machine, and would then be let
    in by the browser as if it were ours. Werkzeug compares no addresses of IPv6, so where one is
    listened at, any name will do.
    """
    if (
        ":" in settings.host
        or settings.token is not None
        or (not is_loopback(settings.host) and not settings.hosts)
    ):
        return None
    return [*LOOPBACK, settings.host, *settings.hosts]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve_settings(
    options: Mapping[str, object], overrides: Sequence[str], token_file: Path | None
) -> ServeSettings:
    """The settings of the environment, over them options, over them `--set key=value`.

    Args:
        options: By name of the setting; None where not given.
        overrides: Each `key=value`.
        token_file: A file with the token alone.

    Raises:
        ConfigError: An unknown name, a value that is not allowed, or no such file.
    """
    found: dict[str, object] = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in os.environ.items()
        if key.startswith(PREFIX) and value
    }
    found |= {name: value for name, value in options.items() if value is not None}
    for assignment in overrides:
        if assignment.partition("=")[0] == "token":
            raise ConfigError(
                "a token must not stand on a command line, where others see it, but got "
                f"--set token=... Put it into {PREFIX}TOKEN, or a file for --token-file."
            )
        found = override(found, assignment)
    if token_file is not None:
        try:
            found["token"] = token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"the file of the token must be readable, but {error}.") from error
    return validated(ServeSettings, found, "settings of hemaml serve")
