"""Configurations as the commands compose them, for the functions that check them."""

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf


def composed(name, overrides):
    """What `python NAME.py OVERRIDES` works with; the running command is set to it."""
    from papo.commands import front_door

    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        whole = compose(name, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(whole)
    plain = OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"])
    OmegaConf.set_struct(plain, True)  # a key that is not there is an error, as for the command
    return plain
