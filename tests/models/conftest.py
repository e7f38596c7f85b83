import pytest


@pytest.fixture(params=["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def family(request):
    return request.param
