"""What commands tell the controller: federation.json (the file as it was read), desired.json (the wish)."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from ..errors import ConfigError, FederationError
from .config import FederationConfig
from .state import StateDir, read_json, write_json


class Saved(BaseModel):
    """federation.json; an ``ephemeral`` federation ends with the command that made it."""

    model_config = ConfigDict(frozen=True)

    config: FederationConfig
    ephemeral: bool = False

    @classmethod
    def read(cls, state: StateDir) -> "Saved | None":
        """What was saved; None where the federation was never up, FederationError where it is damaged."""
        data = read_json(state.config)
        if data is None:
            return None
        try:
            config = FederationConfig.parse(data["config"], str(state.config))
            return cls(config=config, ephemeral=bool(data["ephemeral"]))
        except (ConfigError, KeyError, TypeError) as error:
            raise FederationError(f"{state.config} is damaged: {error}") from error

    def write(self, state: StateDir) -> None:
        """Replace federation.json; the controller reads it when the wish changes."""
        write_json(state.config, self.model_dump(mode="json"))


class Desired(BaseModel):
    """How many nodes each site shall have; ``generation`` grows with each change."""

    model_config = ConfigDict(frozen=True)

    generation: int = 0
    nodes: Mapping[str, NonNegativeInt] = {}
    stop: bool = False

    @classmethod
    def read(cls, state: StateDir) -> "Desired":
        """The last wish; an empty one where there is none, FederationError where it is damaged."""
        try:
            return cls.model_validate(read_json(state.desired) or {})
        except ValidationError as error:
            raise FederationError(f"{state.desired} is damaged: {error.errors()[0]['msg']}") from error

    def write(self, state: StateDir) -> None:
        """Tell the controller."""
        write_json(state.desired, self.model_dump(mode="json"))
