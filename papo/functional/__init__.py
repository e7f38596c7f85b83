"""The maths: pure tensor -> tensor functions; torch alone."""

from papo.functional.logprobs import TokenStatistics, token_statistics

__all__ = [
    "TokenStatistics",
    "token_statistics",
]
