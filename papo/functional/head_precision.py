"""In which precision the output head multiplies and adds: one rule for the sampler and the scorer."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadPrecision:
    """Products of half precision are exact in float32, so only their sums need the width.

    Attributes:
        products: what both operands are rounded to.
        sums: what the products are added up in: float64 for float64, float32 for everything else.
    """

    products: torch.dtype
    sums: torch.dtype

    @classmethod
    def of(cls, hidden: Tensor, weight: Tensor) -> "HeadPrecision":
        """Products in the precision of autocast where it is on, else in that of the operands."""
        wider, device = torch.promote_types(hidden.dtype, weight.dtype), hidden.device.type
        if wider == torch.float64:
            return cls(products=wider, sums=wider)
        autocast = torch.is_autocast_enabled(device)
        products = torch.get_autocast_dtype(device) if autocast else wider
        return cls(products=products, sums=torch.float32)

    def operand(self, values: Tensor) -> Tensor:
        """Values as `matmul` takes them: rounded, and wide again where the device adds no narrow products wide."""
        values = values.to(self.products)
        if values.is_cuda and hasattr(torch.ops.aten.mm, "dtype"):
            return values
        return values.to(self.sums)

    def matmul(self, left: Tensor, right: Tensor) -> Tensor:
        """left @ right of two operands, added up in `sums`. Call it outside autocast."""
        if left.dtype == self.sums:
            return left @ right
        return torch.mm(left, right, out_dtype=self.sums)
