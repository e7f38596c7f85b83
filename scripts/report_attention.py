"""python scripts/report_attention.py A [B]: how much attention responses pay to the picture, and where.

A and B are folders that evaluate.py wrote. Their checkpoints read responses of theirs again, one at a
time. Writes attention.html, attention.csv and attention.jsonl.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.analysis.pages.attention import attention_page
from papo.commands.chosen_device import choose_device, choose_dtype
from papo.commands.constructors import read_run_config
from papo.commands.policy_source import PolicySource, check_policy, folder_model, load_policy
from papo.evaluation.probe.attention import ResponseAttention, response_attention, write_attention
from papo.storage.evaluated_run import EvaluatedRun, ItemKey, read_evaluated_runs
from papo.storage.files import read_object, write_atomically
from papo.storage.pictures import open_picture
from papo.training.base_weights import fingerprint
from papo.types import Problem, derive_seed


def measure(
    run: EvaluatedRun,
    keys: Sequence[ItemKey],
    *,
    device: torch.device,
    dtype: str,
    trust_remote_code: bool = False,
) -> Iterator[ResponseAttention | str]:
    """Yields what the first response to each problem paid to its pictures, or why that is unknown.

    Raises:
        FileNotFoundError: the checkpoint is gone.
        ValueError: it holds other weights than were evaluated.
    """
    facts = read_object(
        run.folder / "run.json", fields={"checkpoint": dict}, remedy="Evaluate again."
    )["checkpoint"]
    config = read_run_config(run.folder / "config.yaml", keys=("evaluation",))
    location = Path(facts["location"])
    trained = location if location.suffix == ".ckpt" else None
    if trained is not None and not trained.exists():
        raise FileNotFoundError(f"{run.folder} is of the checkpoint {trained}, which is not there")
    model = folder_model(run.folder, {"trust_remote_code": True} if trust_remote_code else {})
    source = PolicySource(model=model, trained=trained, location=str(location))
    check_policy(source)
    policy = load_policy(source)
    if facts.get("weights") not in (None, fingerprint(dict(policy.named_parameters()))):
        raise ValueError(f"{location} holds other weights than {run.folder} evaluated")
    if (wanted := choose_dtype(dtype, device)) is not None:
        for parameter in policy.parameters():
            parameter.data = parameter.data.to(wanted)
    policy.to(device)
    num_largest = 0
    for key in keys:
        known = run.problems[key]
        pictures = [open_picture(path, max_side=sys.maxsize) for path in known.images]
        images = tuple(picture for picture in pictures if picture is not None)
        num_largest += any(
            max(image.size) >= config["evaluation"]["picture_side"] for image in images
        )
        problem = Problem(
            id=key[1],
            question=known.question,
            answer="-",
            images=images,
            source=key[0],
            system_prompt=known.system_prompt,
        )
        try:
            yield response_attention(policy, problem, run.responses[key][0], evaluation=run.name)
        except ValueError as error:
            yield f"{run.name}: left out {error}"
    if num_largest:
        yield (
            f"{run.name}: {num_largest} of {len(keys)} problems have a picture of the largest size that an "
            "evaluation keeps (evaluation.picture_side). The policy may have seen it larger than it was read here."
        )


def draw(runs: Sequence[EvaluatedRun], *, count: int, seed: int) -> list[ItemKey]:
    """Returns up to `count` problems with pictures, a fixed function of its arguments.

    Raises:
        ValueError: fewer than one is asked for, or none has a picture.
    """
    pictured = [key for key, problem in runs[0].problems.items() if problem.images]
    if count < 1 or not pictured:
        raise ValueError(
            f"attention is measured of at least one problem with a picture; got --count {count} of "
            f"{len(pictured)} with pictures"
        )
    order = np.random.default_rng(derive_seed(seed, "attention")).permutation(len(pictured))
    return [pictured[index] for index in order[:count]]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first", type=Path, help="an evaluation folder")
    parser.add_argument(
        "second", type=Path, nargs="?", help="another one, of the same problems, beside it"
    )
    parser.add_argument(
        "--count", type=int, default=32, help="problems measured (default: %(default)s)"
    )
    parser.add_argument(
        "--shown", type=int, default=8, help="problems with heat maps (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw and the bootstrap")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--output", type=Path, help="folder to write (default: A/attention)")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with the models"
    )
    arguments = parser.parse_args()
    output = arguments.output or arguments.first / "attention"
    transformers.logging.disable_progress_bar()
    folders = [arguments.first, *([arguments.second] if arguments.second else [])]
    try:
        device = choose_device(arguments.device)
        runs = read_evaluated_runs(folders, view="image", require_finished=True)
        keys = draw(runs, count=arguments.count, seed=arguments.seed)
        results = [
            one
            for run in runs
            for one in measure(
                run,
                keys,
                device=device,
                dtype=arguments.dtype,
                trust_remote_code=arguments.trust_remote_code,
            )
        ]
        found = [one for one in results if not isinstance(one, str)]
        text = attention_page(
            runs,
            [asdict(one) for one in found],
            shown=arguments.shown,
            notes=[one for one in results if isinstance(one, str)],
        )
        output.mkdir(parents=True, exist_ok=True)
        write_attention(found, output)
        write_atomically(output / "attention.html", text)
    except (ValueError, OSError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{output / 'attention.html'} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
