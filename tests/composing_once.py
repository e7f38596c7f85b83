"""What Hydra does again for every command, and tests do a thousand times, is done once in a process.

It composes a command's configuration once more, before all else, to read `hydra.mode`. conf/ does not set it. Where
the command line does not either, that is left out here: a third of the CPU seconds of a command that is refused.

It reads the files of conf/ for every command, finds those that were chosen, and merges them. What was read, found and
merged is remembered here for the next command of the same choices, until one of those files is written, appears or
goes away. The command's values are set anew, in a copy.

OmegaConf parses the text of an interpolation whenever it is asked for its value. The tree depends on the text alone.
"""

import os
import pickle
from functools import cache

from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from omegaconf import _utils, base


def install():
    """From here on commands of this process compose once, of files that are read and merged once."""
    if Hydra.get_mode.__module__ == __name__:
        return
    for owner, name, once in (
        (Hydra, "get_mode", _composing_once),
        (ConfigRepository, "load_config", _reading_once),
        (config_loader_impl, "create_defaults_list", _choosing_once),
        (ConfigLoaderImpl, "_compose_config_from_defaults_list", _merging_once),
        *((module, "parse", cache) for module in (base, _utils)),
    ):
        setattr(owner, name, once(getattr(owner, name)))


def beforehand(folder, *doors, overrides=()):
    """Composes what front doors do, so that processes forked from here need not.

    Args:
        folder: conf/.
        doors: train, evaluate or analyze.
        overrides: of each.
    """
    install()
    for door in doors:
        with initialize_config_dir(str(folder), version_base="1.3"):
            compose(door, overrides=list(overrides), return_hydra_config=True)


def _composing_once(original):
    def get_mode(self, config_name, overrides):
        if any("hydra.mode" in override for override in overrides):
            return original(self, config_name, overrides)
        return None

    return get_mode


def _reading_once(original):
    remembered = {}

    def load_config(self, config_path):
        def read():
            return original(self, config_path), [config_path]

        return _once(remembered, config_path, self, read)

    return load_config


def _choosing_once(original):
    remembered = {}

    def create_defaults_list(repo, config_name, overrides_list, **settings):
        overrides = Overrides(repo, overrides_list)
        values = [id(one) for one in overrides.config_overrides]
        choices = [one.input_line for one in overrides_list if id(one) not in values]

        def choose():
            found = original(repo, config_name, overrides_list, **settings)
            files = [key.removeprefix("config_path=") for key in repo.cache]
            return (found.defaults, found.defaults_tree, found.overrides.known_choices), files

        key = (config_name, *choices, *settings.items())
        found = _once(remembered, key, repo.delegate, choose)
        defaults, tree, overrides.known_choices = found
        return DefaultsList(defaults, tree, overrides.config_overrides, overrides)

    return create_defaults_list


def _merging_once(original):
    remembered = {}

    def _compose_config_from_defaults_list(self, defaults, repo):
        def merge():
            return original(self, defaults, repo), [one.config_path for one in defaults]

        key = tuple((one.config_path, one.package, one.primary) for one in defaults)
        return _once(remembered, key, repo.delegate, merge)

    return _compose_config_from_defaults_list


def _once(remembered, key, repository, make):
    """What `make` makes, with the files it is made of, where they are not as they were when it was made last."""
    key = (key, *((one.provider, os.path.abspath(one.path)) for one in repository.get_sources()))
    versions, kept = remembered.get(key, ({}, b""))
    if not versions or any(_version(repository, name) != was for name, was in versions.items()):
        made, files = make()
        versions = {name: _version(repository, name) for name in files}
        try:
            kept = pickle.dumps(made)
        except pickle.PicklingError:
            # Of a plugin that was imported anew, whose class is another object now.
            return made
        remembered[key] = versions, kept
    # Whoever composes writes into what was made.
    return pickle.loads(kept)  # noqa: S301


def _version(repository, name):
    """What is another where a file is written, appears or goes away."""
    source = repository._find_object_source(config_path=name, object_type=ObjectType.CONFIG)
    if source is None:
        return None
    name = source._normalize_file_name(name)
    if source.scheme() == "file":
        found = os.stat(os.path.join(source.path, name))
        return source.path, found.st_ino, found.st_mtime_ns, found.st_size
    # What was stored in this process, compared as the object that it is, or an installed package.
    return (ConfigStore.instance()._load(name),) if source.scheme() == "structured" else source.path
