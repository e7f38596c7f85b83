"""python -m papo export CHECKPOINT OUTPUT: a trained policy as a Hugging Face folder with a model card.

CHECKPOINT is a file under RUN_DIR/checkpoints/, RUN_DIR itself for its newest one, or RUN_DIR/best. OUTPUT then
loads with AutoModelForImageTextToText.from_pretrained, AutoTokenizer and the image processor of its family, and, where
torchvision is installed, with AutoProcessor.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def export(
    checkpoint: Path,
    output: Path,
    *,
    trust_remote_code: bool = False,
    evaluations: Sequence[Path] = (),
    licence: str | None = None,
) -> None:
    """Writes the policy of a checkpoint to a folder, with a card that says what it is.

    Args:
        checkpoint: a file in a run's checkpoints/, or the run.
        output: must be empty, or not there.
        trust_remote_code: run code that comes with the model; never what the run's own files say.
        evaluations: of these weights, by evaluate.py; their results stand on the card.
        licence: of the base model; None is what its own card says.

    Raises:
        FileNotFoundError: no such checkpoint, or not inside a run folder.
        ValueError: `output` is not empty, the checkpoint is damaged, an evaluation is not finished, or the frozen
            weights are not those of the run.
    """
    import transformers

    from papo.commands.constructors import read_config
    from papo.commands.model_card import base_licence, copy_processor_files, model_card
    from papo.commands.policy_source import (
        PolicySource,
        check_policy,
        folder_model,
        load_policy,
        trained_checkpoint,
    )
    from papo.storage.files import write_atomically

    transformers.logging.disable_progress_bar()
    trained = trained_checkpoint(checkpoint)
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty; choose another folder")
    run = trained.parent.parent
    model = folder_model(run, {"trust_remote_code": True} if trust_remote_code else {})
    source = PolicySource(model=model, trained=trained, location=str(trained))
    base = read_config(run / "config.yaml")["model"]
    card = model_card(
        run,
        checkpoint=trained.stem,
        evaluations=evaluations,
        licence=licence or base_licence(base),
    )
    check_policy(source)
    load_policy(source).save_pretrained(output)
    copy_processor_files(base, output)
    write_atomically(output / "README.md", card)


def push(folder: Path, repository: str, *, public: bool) -> str:
    """Uploads an exported folder to the hub, by the user's own token; returns its address.

    Args:
        folder: that `export` wrote.
        repository: OWNER/NAME; made where it is not there.
        public: for everybody to see; else only for its owner.

    Raises:
        ValueError: the hub refuses it, or there is no token.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    hub = HfApi()
    try:
        address = hub.create_repo(repository, private=not public, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder)
    except HfHubHTTPError as error:
        raise ValueError(f"the hub refused {repository}: {error}. {folder} is written") from error
    return str(address)


def check_push(repository: str) -> None:
    """Says before a model is loaded that it could not be pushed.

    Raises:
        ValueError: no token, or no name of a repository.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(f"--push takes OWNER/NAME; got {repository!r}: {error}") from None
    if get_token() is None:
        raise ValueError("--push needs a token of the hub: set HF_TOKEN, or run `hf auth login`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or a run folder")
    parser.add_argument("output", type=Path, help="the folder to write")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with the model"
    )
    parser.add_argument(
        "--evaluation",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="its results stand on the card; may be given again",
    )
    parser.add_argument("--licence", help="of the base model (default: what its own card says)")
    parser.add_argument(
        "--push", metavar="OWNER/NAME", help="also upload it, private, with your token (HF_TOKEN)"
    )
    parser.add_argument("--public", action="store_true", help="what is pushed is for everybody")
    options = parser.parse_args(arguments)
    try:
        if options.push:
            check_push(options.push)
        export(
            options.checkpoint,
            options.output,
            trust_remote_code=options.trust_remote_code,
            evaluations=options.evaluation,
            licence=options.licence,
        )
        print(f"wrote {options.output}")
        if options.push:
            print(f"pushed to {push(options.output, options.push, public=options.public)}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
