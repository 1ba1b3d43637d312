"""The project's addresses, from `[tool.gdtx]` of pyproject.toml, in the metadata of the package."""

import tomllib
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Urls(MetadataHookInterface):
    """Only those that are set."""

    def update(self, metadata: dict) -> None:
        """Add them."""
        settings = tomllib.loads((Path(self.root) / "pyproject.toml").read_text())["tool"]["gdtx"]
        metadata["urls"] = {name.capitalize(): url for name, url in settings.items() if url}
