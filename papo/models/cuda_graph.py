"""Recording a step on a GPU once and replaying it: thousands of kernels for the price of one call.

Never run on a GPU so far: where recording fails, for whatever reason, the step runs as it is.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from papo.machine.out_of_memory import is_out_of_memory

_log = logging.getLogger(__name__)

_failed = False


def can_replay(device: torch.device) -> bool:
    """Whether steps on this device are recorded."""
    return device.type == "cuda" and not _failed


class Replayed:
    """A function whose inputs, beside those given, stand at one place and change in place.

    The first call runs it, which also prepares what libraries allocate; the second records it.

    Args:
        function: reads and writes tensors on a GPU, without reading anything back.
        inputs: where the tensors that are given per call are copied to.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        self.function = function
        self.inputs = tuple(inputs)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.output: Tensor | None = None
        self.num_calls = 0

    def __call__(self, *given: Tensor) -> Tensor:
        self.num_calls += 1
        for place, values in zip(self.inputs, given, strict=True):
            place.copy_(values)
        if self.num_calls == 2:
            self._record()
        if self.graph is None or self.output is None:
            return self.function(*self.inputs)
        self.graph.replay()
        return self.output

    def _record(self) -> None:
        """Recording runs nothing."""
        global _failed
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = self.function(*self.inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            _failed = True
            _log.warning(
                "a decoding step could not be recorded as a CUDA graph, so its kernels are started one by one "
                "(%s); rollout.cuda_graphs=never does so without trying",
                str(error).splitlines()[0],
            )
            return
        self.graph, self.output = graph, output
