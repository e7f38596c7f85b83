"""Hydra composes a command's configuration once more, before all else, to read `hydra.mode`.

conf/ does not set it. Where the command line does not either, that is left out here: a third of the CPU seconds of a
command that is refused.
"""

from hydra._internal.hydra import Hydra


def install():
    """From here on commands of this process compose once."""
    original = Hydra.get_mode

    def get_mode(self, config_name, overrides):
        if any("hydra.mode" in override for override in overrides):
            return original(self, config_name, overrides)
        return None

    Hydra.get_mode = get_mode
