"""Every place of the sources that constructs by name, unpickles, opens what is not text, or starts a program.

A new place turns this red: it goes through the guard that its kind already has, or gets a line here that
says why it needs none.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("papo", "examples", "scripts", "benchmarks", "conf", "docs", "notebooks", "servers")

# Whatever is used of these modules.
MODULES = (
    *(
        "pickle",
        "joblib",
        "dill",
        "cloudpickle",
        "marshal",
        "shelve",
        "importlib",
        "runpy",
        "ctypes",
    ),
    *("subprocess", "multiprocessing", "pty", "webbrowser", "socket", "ssl", "ftplib", "smtplib"),
    *("requests", "httpx", "aiohttp", "urllib.request", "http.client", "openai"),
    *("zipfile", "tarfile", "gzip", "bz2", "lzma", "zlib", "shutil.unpack_archive"),
    *("huggingface_hub", "datasets", "wandb", "hydra.utils", "PIL.Image.open", "torch.hub"),
    *("yaml", "omegaconf.OmegaConf.load", "omegaconf.OmegaConf.create", "torch.load", "numpy.load"),
    *("os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "builtins"),
    "torch.distributed.launcher.api.elastic_launch",
    *("concurrent.futures.ProcessPoolExecutor", "torch.multiprocessing", "safetensors"),
)
# Built in, and methods, of whatever they are called.
NAMES = ("eval", "exec", "compile", "__import__", "globals", "instantiate")
METHODS = (
    *(
        "from_pretrained",
        "from_config",
        "load_adapter",
        "load_dataset",
        "read_pickle",
        "unpack_archive",
    ),
    *("hf_hub_download", "snapshot_download", "load_state_dict", "from_file", "load_from_disk"),
)

CONFIG = "constructors.py says which names, and that a folder's file has none of its own"
TRUST = "code of a model: model.trust_remote_code of the command line alone; weights: no pickles"
WEIGHTS = "weights_only=True, below"
SAFE = "plain values: safe_load, or events alone"
PICTURES = "formats, pixels, bytes and kind of file, tests/storage/test_pictures.py"
ARCHIVE = "paths, sizes, ratio and kinds, tests/data/test_benchmark_archive.py"
ANSWER = "a deadline and a size, tests/analysis/errors/test_judge.py"
SERVER = (
    "an address of the settings, a deadline, a size and JSON alone, tests/rollout/test_server.py"
)
HUB = "asked within seconds (papo/storage/hub.py)"
DOWNLOAD = "a deadline, and neither scripts nor pickles, tests/storage/test_downloads.py"
PUSH = "--push of the command line alone, by the user's token; tests/commands/test_model_card.py"
OWN = "the program's own command, settings and files; nothing in it is data"
NAMED = "names of fields that papo itself lists"

PLACES = {
    "papo/commands/analysis.py": {
        "papo.commands.building.instantiate": CONFIG,
        "subprocess.run": "papo evaluate with arguments, no shell; tests/conf/test_constructors.py",
        **dict.fromkeys(["wandb.Image", "wandb.Settings", "wandb.Table", "wandb.init"], OWN),
    },
    "benchmarks/__main__.py": {"subprocess.run": OWN},
    "benchmarks/contest.py": {"subprocess.Popen": OWN},
    "benchmarks/gpu/__main__.py": {"subprocess.run": OWN},
    "benchmarks/gpu/passes.py": {"getattr": NAMED},
    "benchmarks/gpu/random_policy.py": {".from_config": OWN, "getattr": OWN},
    "benchmarks/gpu/runner.py": dict.fromkeys(
        ["subprocess.Popen", "subprocess.TimeoutExpired"], OWN
    ),
    "benchmarks/gpu/steps.py": {"subprocess.run": OWN},
    "benchmarks/gpu/wheels.py": {"importlib.metadata.requires": OWN, "subprocess.run": OWN},
    "benchmarks/grading.py": {"subprocess.Popen": OWN},
    "benchmarks/measure.py": {"importlib.metadata.version": OWN, "subprocess.run": OWN},
    "benchmarks/methods.py": {"papo.commands.building.instantiate": CONFIG},
    "benchmarks/own_step.py": {".from_pretrained": OWN, "importlib.metadata.version": OWN},
    "benchmarks/peers/trl_step.py": {
        ".from_pretrained": OWN,
        "PIL.Image.open": OWN,
        "datasets.Dataset": OWN,
        "datasets.Dataset.from_list": OWN,
        "importlib.metadata.version": OWN,
    },
    "benchmarks/prefix_grouper.py": {"importlib.import_module": OWN},
    "conf/lmms_eval/papo_eval.py": {
        "datasets.Dataset": OWN,
        "datasets.Dataset.from_list": OWN,
        "yaml.safe_load": SAFE,
    },
    "papo/commands/constructors.py": {
        "getattr": CONFIG,
        "importlib.import_module": CONFIG,
        "omegaconf.OmegaConf.create": SAFE,
        **dict.fromkeys(
            [f"yaml.{n}Event" for n in ("Alias", "CollectionEnd", "CollectionStart", "")], SAFE
        ),
        "yaml.parse": SAFE,
    },
    "papo/commands/check_data.py": {"papo.commands.building.instantiate": CONFIG},
    "papo/commands/benchmarks.py": {"papo.commands.building.instantiate": CONFIG},
    "papo/commands/evaluation/plan.py": {"papo.commands.building.instantiate": CONFIG},
    "papo/commands/export.py": {
        **dict.fromkeys(["huggingface_hub.HfApi", "huggingface_hub.get_token"], PUSH),
        "huggingface_hub.utils.validate_repo_id": PUSH,
    },
    "papo/commands/model_card.py": {
        "huggingface_hub.try_to_load_from_cache": "never asks the hub",
        "yaml.safe_load": SAFE,
    },
    "papo/commands/building.py": {
        "hydra.utils.instantiate": CONFIG,
        "importlib.util.find_spec": OWN,
        "instantiate": CONFIG,
        "wandb.login": OWN,
    },
    "notebooks/execute.py": {"PIL.Image.open": "plots that the notebook just drew"},
    "notebooks/error_analysis.ipynb": {"subprocess.run": OWN},
    "notebooks/papo_on_one_page.ipynb": {"papo.commands.building.instantiate": CONFIG},
    "notebooks/reading_a_run.ipynb": {"subprocess.run": OWN},
    "notebooks/what_the_mask_hides.ipynb": {"papo.commands.building.instantiate": CONFIG},
    "scripts/draw_pictures.py": {
        "PIL.Image.open": "what Chromium just drew",
        "papo.commands.building.instantiate": CONFIG,
        "subprocess.run": OWN,
    },
    "scripts/draw_results.py": {"yaml.safe_load": SAFE},
    "papo/storage/evaluated_run.py": {"getattr": NAMED},
    "papo/analysis/errors/labellers/judge/remote.py": {
        "openai": ANSWER,
        "openai.DefaultHttpxClient": ANSWER,
        "openai.OpenAI": ANSWER,
    },
    "papo/storage/sweep_jobs.py": {"yaml.safe_load": SAFE},
    "papo/analysis/errors/summary.py": {"getattr": NAMED},
    "papo/data/archive.py": {
        **dict.fromkeys(["zipfile.BadZipFile", "zipfile.ZipFile", "zipfile.ZipInfo"], ARCHIVE)
    },
    "papo/data/availability.py": {"datasets.naming.camelcase_to_snakecase": HUB},
    "papo/data/hub_file.py": {
        "huggingface_hub.HfApi": HUB,
        "huggingface_hub.hf_hub_download": DOWNLOAD,
        "huggingface_hub.try_to_load_from_cache": HUB,
    },
    "papo/data/rows.py": {"datasets.load_dataset": DOWNLOAD},
    "papo/evaluation/probe/attention.py": {"getattr": NAMED},
    "papo/storage/hub.py": {
        "huggingface_hub.HfApi": HUB,
        "huggingface_hub.snapshot_download": DOWNLOAD,
    },
    "papo/masking/dino_saliency.py": {
        ".from_pretrained": TRUST,
        "huggingface_hub.try_to_load_from_cache": HUB,
    },
    "papo/models/families/gemma4.py": {"getattr": "names written there"},
    "papo/models/families/windows.py": {"getattr": "names that the files of families write"},
    "papo/models/loading.py": {
        ".from_pretrained": TRUST,
        "getattr": "a type of torch, checked",
        "huggingface_hub.try_to_load_from_cache": HUB,
    },
    "papo/models/lora.py": {
        "importlib.metadata.version": OWN,
        "safetensors.torch.save_file": OWN,
    },
    "papo/models/meta_loading.py": {
        ".from_config": "a class of transformers, of a supported family; with code of its own: papo/models/loading.py",
        ".from_pretrained": "plain values: how a model generates",
        "huggingface_hub.try_to_load_from_cache": HUB,
        "getattr": NAMED,
    },
    "papo/models/weight_files.py": {
        "safetensors.safe_open": "tensors alone, of files in the folder itself; tests/models/test_weight_files.py",
        "getattr": NAMED,
    },
    "papo/storage/pictures.py": {"PIL.Image.open": PICTURES, "importlib.util.find_spec": OWN},
    "papo/objective/objective.py": {"getattr": NAMED},
    "papo/objective/pulls.py": {"getattr": NAMED},
    "papo/objective/term.py": {"getattr": NAMED},
    "papo/parallel/launch.py": {
        "torch.distributed.launcher.api.elastic_launch": "the command itself, again; no shell",
    },
    "papo/parallel/ranks.py": {"torch.load": WEIGHTS},
    "papo/storage/provenance.py": {"importlib.metadata.version": OWN, "subprocess.run": OWN},
    "papo/storage/published.py": {"yaml.safe_load": SAFE},
    "papo/methods/r1_sharevl.py": {"getattr": NAMED},
    "papo/objective/credit.py": {"getattr": NAMED},
    "papo/rewards/__init__.py": {"getattr": NAMED},
    "papo/rewards/grading_pool.py": {
        "subprocess.Popen": "papo's own worker, which parses text; tests/rewards/test_grading_pool.py"
    },
    "papo/rollout/connection.py": dict.fromkeys(
        [
            f"urllib.request.{name}"
            for name in (
                "HTTPRedirectHandler",
                "OpenerDirector",
                "ProxyHandler",
                "Request",
                "build_opener",
            )
        ],
        SERVER,
    ),
    "papo/rollout/weight_source.py": {"safetensors.torch.save_file": OWN},
    "papo/training/ahead.py": {"getattr": NAMED},
    "papo/training/base_weights.py": {".load_state_dict": WEIGHTS},
    "papo/training/callbacks/safeguard.py": {
        ".load_state_dict": "plain numbers of the run's own checkpoints"
    },
    "papo/training/callbacks/wandb_rollouts.py": dict.fromkeys(
        ["wandb.Html", "wandb.Image", "wandb.Table"], OWN
    ),
    "papo/training/checkpoint_folder.py": {
        "torch.load": WEIGHTS,
        "safetensors.safe_open": "tensors alone, of files in the folder itself; tests/parallel/test_sharding_checkpoints.py",
        "safetensors.torch.save_file": OWN,
    },
    "papo/training/checkpoints.py": {
        "torch.load": WEIGHTS,
        "zipfile.ZipFile": "its checksums alone; nothing is unpacked onto the disk",
    },
    "papo/training/credit.py": {"getattr": NAMED},
    "papo/training/data_fingerprint.py": {"getattr": NAMED},
    "papo/training/draft.py": {"getattr": NAMED},
    "papo/training/failures.py": {"getattr": NAMED},
    "papo/training/loggers.py": {
        "wandb.Settings": OWN,
        "wandb.Settings.model_fields": OWN,
    },
    "papo/training/memory.py": {"getattr": NAMED},
    "papo/training/microbatches.py": {"getattr": NAMED},
    "papo/training/settings.py": {"getattr": NAMED},
    "papo/training/term_gradients.py": {"getattr": NAMED},
    "papo/types/rollout.py": {"getattr": NAMED},
    "papo/commands/policy_source.py": {
        "papo.commands.building.instantiate": CONFIG,
        "omegaconf.OmegaConf.create": CONFIG,
    },
    "papo/commands/run_memory.py": {
        "papo.commands.building.instantiate": CONFIG,
        "omegaconf.OmegaConf.load": OWN,
    },
    "papo/commands/help.py": {"yaml.safe_load": SAFE},
    "papo/commands/check_run.py": {"yaml.safe_load": SAFE},
    "papo/commands/check_method.py": {
        "importlib.import_module": "modules of method_cases.MODULES alone"
    },
    "servers/vllm/plugin/papo_vllm/engine.py": {
        ".from_config": "the server's own model, no code that comes with it"
    },
    "servers/vllm/plugin/papo_vllm/parts.py": {
        "safetensors.safe_open": "names, folder, sizes and shapes, tests/rollout/test_vllm_plugin.py"
    },
    "servers/vllm/prepare_cpu.py": {"importlib.metadata.version": OWN},
    "papo/commands/training/continued.py": {"omegaconf.OmegaConf.create": CONFIG},
    "papo/commands/command_line.py": {"importlib.import_module": "a command of its own table"},
    "papo/commands/training/plan.py": {"papo.commands.building.instantiate": CONFIG},
    "papo/commands/training/run.py": {"papo.commands.building.instantiate": CONFIG},
}


def dotted(node: ast.AST, imported: dict[str, str]) -> str | None:
    """The full name of an expression, by what the file imports; None where it is no name."""
    if isinstance(node, ast.Name):
        return imported.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = dotted(node.value, imported)
        return None if before is None else f"{before}.{node.attr}"
    return None


def imports(tree: ast.AST) -> dict[str, str]:
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                names[one.asname or one.name.partition(".")[0]] = (
                    one.name if one.asname else one.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for one in node.names:
                names[one.asname or one.name] = f"{node.module}.{one.name}"
    return names


def is_watched(name: str) -> bool:
    last = name.rpartition(".")[2]
    if last.isupper() or last.endswith(("error", "Error", "Exception")):
        return False
    return last in NAMES or any(f"{name}.".startswith(f"{one}.") for one in MODULES)


def places(tree: ast.AST) -> Iterator[str]:
    """Yields the name of everything watched that is used, called or not."""
    imported = imports(tree)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and dotted(node.func, imported) == "getattr"
            and not isinstance(node.args[1], ast.Constant)
        ):
            yield "getattr"
        if (
            not isinstance(node, ast.Name | ast.Attribute)
            or id(node) in inner
            or not isinstance(node.ctx, ast.Load)
        ):
            continue
        name = dotted(node, imported)
        method = node.attr if isinstance(node, ast.Attribute) else None
        if method in METHODS and not (name and is_watched(name)):
            yield f".{method}"
        # model.eval() of torch and re.compile are no eval and no compile.
        elif name and is_watched(name) and not (method in NAMES and method != "instantiate"):
            yield name


def sources() -> Iterator[tuple[str, ast.AST]]:
    files = [*REPOSITORY.glob("*.py")]
    for folder in FOLDERS:
        files += (REPOSITORY / folder).rglob("*.py")
        files += (REPOSITORY / folder).rglob("*.ipynb")
    for file in sorted(files):
        text = file.read_text("utf-8")
        if file.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        yield file.relative_to(REPOSITORY).as_posix(), ast.parse(text)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.AST]:
    return dict(sources())


def test_nothing_new_constructs_unpickles_opens_or_starts(trees):
    found = {file: sorted(set(places(tree))) for file, tree in trees.items()}
    found = {file: names for file, names in found.items() if names}
    assert found == {file: sorted(names) for file, names in PLACES.items()}


def test_no_folder_of_sources_is_left_out():
    unread = {"tests", "outputs", "build", "dist"}
    folders = {
        file.relative_to(REPOSITORY).parts[0]
        for one in REPOSITORY.iterdir()
        if one.is_dir() and not one.name.startswith(".") and one.name not in unread
        for file in one.rglob("*.py")
    }
    assert {name for name in folders if not name.endswith(".egg-info")} <= set(FOLDERS)


def calls(trees: dict[str, ast.AST], end: str) -> Iterator[tuple[str, ast.Call]]:
    for file, tree in trees.items():
        imported = imports(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = dotted(node.func, imported) or ast.unparse(node.func)
                if name.endswith(end):
                    yield file, node


def keywords(call: ast.Call) -> dict[str | None, str]:
    return {one.arg: ast.unparse(one.value) for one in call.keywords}


def test_every_pickle_of_tensors_is_read_as_tensors_alone(trees):
    loads = list(calls(trees, "torch.load"))
    assert len(loads) >= 2
    for file, call in loads:
        assert keywords(call).get("weights_only") == "True", file


def test_nobody_but_the_command_line_trusts_the_code_of_a_model(trees):
    for file, call in calls(trees, ".from_pretrained"):
        assert keywords(call).get("trust_remote_code", "False") in ("trust_remote_code", "False"), (
            file
        )
    for file in (REPOSITORY / "conf").rglob("*.yaml"):
        text = file.read_text("utf-8").lower()
        assert "trust_remote_code: true" not in text.replace("'", "").replace('"', ""), file


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch\ntorch.load(f)", "torch.load"),
        ("from torch import load as l\nl(f)", "torch.load"),
        ("import torch as t\nrun = partial(t.load, f)", "torch.load"),
        ("import pickle\npickle.loads(b)", "pickle.loads"),
        ("from pickle import Unpickler\nUnpickler(f)", "pickle.Unpickler"),
        ("import numpy as np\nnp.load(f)", "numpy.load"),
        ("import yaml\nyaml.unsafe_load(t)", "yaml.unsafe_load"),
        ("from PIL import Image\nImage.open(f)", "PIL.Image.open"),
        ("import PIL.Image\nPIL.Image.open(f)", "PIL.Image.open"),
        ("def f():\n    import tarfile\n    tarfile.open(f)", "tarfile.open"),
        ("from urllib.request import urlopen\nurlopen(u)", "urllib.request.urlopen"),
        ("import os\nos.system(c)", "os.system"),
        ("import hydra\nhydra.utils.get_method(n)", "hydra.utils.get_method"),
        ("from hydra.utils import instantiate as i\ni(c)", "hydra.utils.instantiate"),
        ("import importlib\nimportlib.import_module(n)", "importlib.import_module"),
        ("getattr(torch, name)", "getattr"),
        ("eval(text)", "eval"),
        ("run = exec", "exec"),
        ("__import__(name)", "__import__"),
        ("AutoModel.from_pretrained(p)", ".from_pretrained"),
        ("frame().read_pickle(p)", ".read_pickle"),
        ("from omegaconf import OmegaConf\nOmegaConf.load(p)", "omegaconf.OmegaConf.load"),
    ],
)
def test_a_new_place_of_each_kind_is_seen(source, name):
    assert name in places(ast.parse(source))


@pytest.mark.parametrize(
    "source", ["model.eval()", "import re\nre.compile(p)", "getattr(model, 'name', None)"]
)
def test_what_opens_nothing_is_not_seen(source):
    assert not list(places(ast.parse(source)))
