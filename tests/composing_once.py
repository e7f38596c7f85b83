"""What Hydra does again for every command, and tests do a thousand times, is done once in a process.

It composes a command's configuration once more, before all else, to read `hydra.mode`. conf/ does not set it. Where
the command line does not either, that is left out here: a third of the CPU seconds of a command that is refused.

It reads every file of conf/ for every command. A file that was read is remembered here until it is written.
"""

import os
import pickle

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType


def install():
    """From here on commands of this process compose once, of files that are read once."""
    Hydra.get_mode = _composing_once(Hydra.get_mode)
    ConfigRepository.load_config = _reading_once(ConfigRepository.load_config)


def _composing_once(original):
    def get_mode(self, config_name, overrides):
        if any("hydra.mode" in override for override in overrides):
            return original(self, config_name, overrides)
        return None

    return get_mode


def _reading_once(original):
    read = {}

    def load_config(self, config_path):
        source = self._find_object_source(config_path=config_path, object_type=ObjectType.CONFIG)
        version = source and _version(source, source._normalize_file_name(config_path))
        if version is None:
            return original(self, config_path)
        # The folder that a file is found in is one of several, and is said with what was read.
        place = (source.provider, os.path.abspath(source.path), config_path)
        if read.get(place, (None,))[0] != version:
            read[place] = version, pickle.dumps(original(self, config_path))
        # Whoever composes writes into what was read.
        return pickle.loads(read[place][1])  # noqa: S301

    return load_config


def _version(source, name):
    """What changes where a file is written; None where that is not known, as of packages of one's own."""
    if source.scheme() == "file":
        found = os.stat(os.path.join(source.path, name))
        return found.st_ino, found.st_mtime_ns, found.st_size
    return () if source.path == "hydra.conf" else None
