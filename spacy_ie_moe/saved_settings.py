"""Settings of a component that can change after it was made, saved beside its network."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)


class SavedSettings:
    """Tells what a user set at run time, which is to come back, from what a config says, which may be overridden.

    defaults: of the factory. configured: the values that the component was made with.
    """

    def __init__(self, defaults: Mapping[str, Any], configured: Mapping[str, Any]) -> None:
        self.defaults = defaults
        self.configured = configured

    def write(self, settings: Mapping[str, Any]) -> str:
        """The settings in JSON, each with the value that the config gives it."""
        return json.dumps(
            {name: {"configured": self.configured[name], "value": value} for name, value in settings.items()}
        )

    def read(self, text: str) -> dict[str, Any]:
        """The settings that were saved, but for those that the present config sets to something else than then."""
        saved = {name: entry for name, entry in json.loads(text).items() if name in self.configured}
        taken = {name: entry["value"] for name, entry in saved.items() if not self._is_override(name, entry)}
        for name, value in taken.items():
            if self.configured[name] not in (value, saved[name]["configured"]):
                # A config that leaves it out, or one that asks for the default: the two look the same.
                logger.warning("%s is the saved %r, not the default %r.", name, value, self.configured[name])
        return taken

    def _is_override(self, name: str, entry: Mapping[str, Any]) -> bool:
        return self.configured[name] not in (entry["configured"], self.defaults[name])
