import pytest


@pytest.fixture(params=["qwen2_5_vl", "qwen3_vl"])
def family(request):
    return request.param
