"""What the device does at best: products, copies, and drawing a token."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu.setting import Setting
from benchmarks.gpu.worker import Answer
from benchmarks.measure import environment
from papo.rollout import draw_tokens

# Rows that are left, on average, of a batch of 255 whose longest response is five times the mean.
MEAN_ROWS_LEFT = 51


def ceilings(setting: Setting) -> Iterator[Answer]:
    """Products in both precisions of the head, and memory."""
    yield {"what": "environment", **environment()}
    yield product(setting)
    yield from _head_products(setting)
    source = torch.empty(setting.sizes.product**2 * 16, dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    moved = 2 * source.numel()
    rate = moved / setting.seconds(lambda: target.copy_(source), repetitions=9)
    yield {
        "what": "copy, bytes read and written",
        "tb_per_second": rate / 1e12,
        "rates": {"bytes_per_second": rate},
    }


def product(setting: Setting) -> Answer:
    """A large bfloat16 product: what MFU divides by."""
    device, size = setting.device, setting.sizes.product
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * size**3 / setting.seconds(lambda: left @ right, repetitions=9, warm_ups=3)
    return {
        "what": "bfloat16 product",
        "size": size,
        "tflops": rate / 1e12,
        "rates": {"peak": rate},
    }


def _head_products(setting: Setting) -> Iterator[Answer]:
    weight = setting.policy.adapter.head_weight.detach()
    vocabulary, hidden_size = weight.shape
    rows = 64 if setting.is_toy else 2048
    hidden = torch.randn(rows, hidden_size, device=setting.device)
    weight = weight.float()
    operations = 2 * rows * hidden_size * vocabulary
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            rate = operations / setting.seconds(lambda: hidden @ weight.T)
            # A run leaves PyTorch's own setting, which is the first.
            rates = {"head_float32": rate} if precision == "highest" else {}
            yield {
                "what": f"head product, float32 at matmul precision {precision}",
                "tflops": rate / 1e12,
                "rates": rates,
            }
    finally:
        torch.set_float32_matmul_precision(before)
    if setting.device.type != "cuda":
        return  # A CPU has no product of bfloat16 with float32 sums that are kept.
    halves = hidden.bfloat16(), weight.bfloat16().T
    rate = operations / setting.seconds(lambda: torch.mm(*halves, out_dtype=torch.float32))
    yield {
        "what": "head product, bfloat16 with float32 sums",
        "tflops": rate / 1e12,
        "rates": {"head_bf16": rate},
    }


def draws(setting: Setting) -> Iterator[Answer]:
    """Drawing a token of each row, by what is kept of its distribution."""
    vocabulary = setting.policy.adapter.head_weight.shape[0]
    for rows in (4,) if setting.is_toy else (MEAN_ROWS_LEFT, 255):
        logprobs = (3 * torch.randn(rows, vocabulary, device=setting.device)).log_softmax(-1)
        uniform = torch.rand(rows, device=setting.device, dtype=torch.float64)
        seconds = {
            name: setting.seconds(partial(draw_tokens, logprobs, uniform, top_p, top_k))
            for name, top_p, top_k in (
                ("all", 1.0, None),
                ("top_p_99", 0.99, None),
                ("top_k_50", 1.0, 50),
            )
        }
        yield {
            "rows": rows,
            **{f"ms_{name}": 1e3 * value for name, value in seconds.items()},
            "rates": {} if rows == 255 else {"sort": seconds["top_p_99"]},
        }
