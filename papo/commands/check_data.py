"""`python -m papo check data data.path=FOLDER`: what training would read of your data, before anything is trained.

Takes the overrides of train.py; without an +experiment= those of own_data are meant. Prints rows, columns, what is left
out and how the references are graded against themselves, and writes a page with the first prompt. No weights are
loaded; where the model's tokenizer is not to be had, the prompts are not measured, which is said.
"""

import sys
from typing import Any

import hydra
from omegaconf import DictConfig

from papo.commands import front_door
from papo.commands.constructors import allow_packages, plain
from papo.storage.files import write_atomically
from papo.types import shown

FOLDER = "outputs/check_data/${start_time:%Y-%m-%d_%H-%M-%S}"


@front_door.clear_errors(reached=lambda _: "has no page yet", resumes_alone=False)
def task(config: DictConfig) -> None:
    """Reads the data, prints what was found and writes data.html."""
    # As in train.py: a line that Hydra refuses is answered before torch and its like are loaded.
    from papo.analysis.pages.data import data_page
    from papo.commands import building
    from papo.commands.training.plan import KNOWN_KEYS
    from papo.commands.training.preflight import check_reward_fits
    from papo.data import preview

    allow_packages(plain(config, resolve=False).get("allow"))
    building.check_known_keys(config, KNOWN_KEYS)
    source, reward = (building.instantiate(node) for node in (config.data, config.reward))
    check_reward_fits(source, reward)
    if not hasattr(source, "usable"):
        raise ValueError(
            f"data={type(source).__name__} draws its problems: there is nothing to check"
        )
    if hasattr(source, "preflight"):
        source.preflight()
    try:
        encoder, missing = encoder_of(config.model), ""
    except (FileNotFoundError, OSError) as error:
        encoder, missing = None, f"prompts are not measured, and no tokens shown: {error}"
    found = preview(
        source, prompt_length=encoder.prompt_length if encoder else lambda _: 1, reward=reward
    )
    if hasattr(reward, "close"):
        reward.close()
    tokens = encoder.tokens(found.first) if encoder else []
    pictures = ()
    if encoder and found.first.images:
        pictures = encoder.pictures(*encoder.process_images(found.first.images))
    print(found.summary())
    first = found.first
    print(f"the first problem, {shown(first.id)}: {shown(first.question, 1000)}")
    print(f"  reference answer: {shown(first.answer)}; {len(first.images)} pictures")
    head = " | ".join(shown(token) for token in tokens[:60])
    print(missing or f"  {len(tokens)} tokens and runs of image slots: {head}")
    file = front_door.run_dir() / "data.html"
    write_atomically(file, data_page(found, pictures=pictures, tokens=tokens))
    print(f"see {file}")


def encoder_of(model: DictConfig) -> Any:
    """What makes the model's prompts; of a model on the disk or the hub, no weights are read."""
    from papo.commands import building
    from papo.models import load_encoder

    if "hub_id" not in model:
        return building.instantiate(model).encoder
    keys = ("path", "hub_id", "revision", "min_pixels", "max_pixels", "trust_remote_code")
    return load_encoder(**{key: model[key] for key in keys}, thinking=model.get("thinking"))


def with_defaults(arguments: list[str]) -> list[str]:
    """The overrides, with the experiment and the folder that are meant where none is named."""
    words = list(arguments)
    if not any(word.startswith("+experiment=") for word in words):
        words.insert(0, "+experiment=own_data")
    if not any(word.startswith("run_dir=") for word in words):
        words.append(f"run_dir={FOLDER}")
    return words


composed = hydra.main(
    config_path=front_door.CONFIG_FOLDER, config_name="train", version_base="1.3"
)(task)


def main() -> None:
    """Runs the command on the arguments of this process."""
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(__doc__)
        return
    sys.argv[1:] = with_defaults(sys.argv[1:])
    composed()
