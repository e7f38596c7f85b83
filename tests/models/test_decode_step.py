"""One token of every row: what it costs, counted, and that it is what the model says, however it is run."""

import pytest
import torch
from model_fixtures import mixed_problems, tiny_policy
from torch.utils._python_dispatch import TorchDispatchMode

from papo.models import cuda_graph, decode_step
from papo.models.lora import LoraPart, add_adapters
from papo.rollout import SharedPrefillSampler, drawing
from papo.types import derive_seeds

TOKENS = 40
ENDS = tuple(range(0, 256, 8))


def sampler(policy, *, look_every=1, static=False, **overrides):
    settings = {"temperature": 1.0, "top_p": 1.0, "top_k": None, "max_rows": 64}
    engine = SharedPrefillSampler(
        policy=policy, **{**settings, "max_response_tokens": TOKENS, **overrides}
    )
    engine.look_every, engine.static = look_every, static
    return engine


def sample(policy, **settings):
    groups = policy.encode(mixed_problems())
    return sampler(policy, **settings).sample(groups, 4, derive_seeds(1, len(groups)))


def with_many_ends(family, monkeypatch):
    """A policy whose responses end at different times."""
    policy = tiny_policy(family, initializer_range=0.02)
    monkeypatch.setattr(type(policy), "end_token_ids", property(lambda self: ENDS))
    return policy


def assert_same(got, expected, atol=1e-5):
    assert got.texts == expected.texts
    assert torch.equal(got.ids, expected.ids)
    assert torch.equal(got.mask, expected.mask)
    torch.testing.assert_close(got.logprobs, expected.logprobs, rtol=0, atol=atol)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_step_of_fixed_shape_writes_what_one_of_growing_shape_writes(family, top_p, monkeypatch):
    policy = with_many_ends(family, monkeypatch)
    monkeypatch.setattr("papo.models.shared_decoding.SPARE_TOKENS", 16)  # grows twice
    expected = sample(policy, top_p=top_p)
    assert expected.mask.sum(dim=1).unique().numel() > 3
    assert_same(sample(policy, top_p=top_p, static=True, look_every=7), expected)


def test_a_nucleus_beyond_the_most_likely_tokens_is_drawn_again_from_all(monkeypatch):
    policy = with_many_ends("qwen2_5_vl", monkeypatch)
    expected = sample(policy, top_p=0.9)
    redone = []
    monkeypatch.setattr(drawing, "HEAD_TOKENS", 12)
    original = drawing.draw_from_sorted
    monkeypatch.setattr(
        "papo.rollout.sampler.draw_from_sorted",
        lambda *given: redone.append(1) or original(*given),
    )
    assert_same(sample(policy, top_p=0.9, static=True, look_every=7), expected)
    assert redone


class Counted(TorchDispatchMode):
    """Kernels (views are none), casts, casts of whole weights, and answers that a device must give."""

    VIEWS = frozenset(
        [
            "view",
            "_unsafe_view",
            "transpose",
            "t",
            "slice",
            "select",
            "expand",
            "unsqueeze",
            "squeeze",
            "detach",
            "alias",
            "split",
            "split_with_sizes",
            "permute",
            "as_strided",
            "unfold",
            "chunk",
        ]
    )
    ANSWERS = frozenset(["_local_scalar_dense", "nonzero", "_unique2"])

    def __init__(self, weights=()):
        super().__init__()
        self.kernels = self.casts = self.weight_casts = self.answers = 0
        self.weights = {weight.data_ptr() for weight in weights}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.kernels += name not in self.VIEWS
        self.answers += name in self.ANSWERS
        if name == "_to_copy" and (kwargs or {}).get("dtype") not in (None, args[0].dtype):
            self.casts += 1
            self.weight_casts += args[0].data_ptr() in self.weights
        return func(*args, **(kwargs or {}))


def count(policy, half=False, **settings):
    counted = Counted(policy.parameters())
    # As Lightning has it, which lets autocast remember nothing.
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=half, cache_enabled=False)
    with counted, autocast:
        sample(policy, **settings)
    return counted


def per_token(policy, **settings):
    """Of what `Counted` counts, the difference that one more token makes."""
    longer = count(policy, max_response_tokens=24, **settings)
    shorter = count(policy, max_response_tokens=8, **settings)
    names = ("kernels", "casts", "weight_casts", "answers")
    return {name: (getattr(longer, name) - getattr(shorter, name)) / 16 for name in names}


def test_no_weight_is_cast_per_token_and_nothing_is_kept(family):
    policy = tiny_policy(family)
    cost = per_token(policy, half=True)
    assert cost["weight_casts"] == 0
    layers = len(policy.adapter.language_model.layers)
    # Per layer what goes into its products: both inputs, query, key, weights of attention; mask.
    # Norms of queries and keys; linear attention is computed in float32.
    more = {"qwen2_5_vl": 0, "qwen3_vl": 4, "qwen3_5": 10}[family]
    assert (
        cost["casts"] <= (5 + more) * layers + 4
    )  # twice for the head, once each for sums and ends
    assert policy.reader.decoding is None


def projections(layer):
    """What reads the input of the layer."""
    return getattr(layer.mixer, "qkv", None) or layer.mixer.inputs


def test_the_weights_of_a_step_are_those_of_now_and_narrow_under_autocast_alone(family):
    policy = tiny_policy(family)
    language_model = policy.adapter.language_model
    wide = decode_step.DecodeStep(policy.adapter, static=False).layers[0]
    assert wide.down.weight.data_ptr() == language_model.layers[0].mlp.down_proj.weight.data_ptr()
    assert len(projections(wide)) == (4 if family == "qwen3_5" else 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step = decode_step.DecodeStep(policy.adapter, static=False)
    assert step.layers[0].down.weight.dtype == torch.bfloat16
    assert len(projections(step.layers[0])) == len(step.layers[0].gate_up) == 1
    assert step._rotations_until(5).dtype == torch.float32


@pytest.mark.parametrize(("look_every", "answers"), [(1, 1.0), (8, 0.25)])
def test_the_device_is_asked_where_finished_rows_are_looked_for_alone(look_every, answers):
    cost = per_token(tiny_policy(), look_every=look_every, static=True, top_p=1.0)
    assert cost["answers"] <= answers


@pytest.mark.parametrize(("family_", "most"), [("qwen2_5_vl", 43), ("qwen3_vl", 56)])
def test_a_token_takes_few_kernels(family_, most):
    policy = tiny_policy(family_)
    cost = per_token(policy, look_every=8)
    layers = len(policy.adapter.language_model.layers)
    assert cost["kernels"] <= most * layers + 42


def test_a_step_that_cannot_be_recorded_runs_as_it_is_and_says_so_once(monkeypatch, caplog):
    policy = with_many_ends("qwen2_5_vl", monkeypatch)
    expected = sample(policy)
    monkeypatch.setattr(cuda_graph, "_failed", False)
    monkeypatch.setattr(decode_step, "can_replay", lambda device: not cuda_graph._failed)
    # There is no GPU here, so recording fails.
    assert_same(sample(policy, static=True, look_every=7), expected)
    assert caplog.text.count("could not be recorded") == 1
    assert "rollout.cuda_graphs" in caplog.text


class PretendedGraph:
    """Replays what was recorded by running it again: it may read only what stands at one place."""

    recorded = 0

    def replay(self):
        self.output.copy_(self.function())


@pytest.mark.parametrize("family_", ["qwen2_5_vl", "qwen3_5"])
def test_a_recorded_step_reads_and_writes_the_same_places(family_, monkeypatch):
    policy = with_many_ends(family_, monkeypatch)
    expected = sample(policy)

    def record(self):
        graph, function, inputs = PretendedGraph(), self.function, self.inputs
        PretendedGraph.recorded += 1
        held = [each.data_ptr() for each in inputs]
        graph.function = lambda: function(*inputs)
        graph.output = torch.empty_like(self.last)
        assert held == [each.data_ptr() for each in inputs]
        self.graph, self.output = graph, graph.output

    run = cuda_graph.Replayed.__call__

    def call(self, *given):
        result = run(self, *given)
        self.last = result
        return result

    monkeypatch.setattr(cuda_graph.Replayed, "_record", record)
    monkeypatch.setattr(cuda_graph.Replayed, "__call__", call)
    monkeypatch.setattr(decode_step, "can_replay", lambda device: True)
    assert_same(sample(policy, static=True, look_every=7), expected)
    assert PretendedGraph.recorded >= 2  # once more after rows have left


@pytest.mark.parametrize("half", [False, True])
def test_adapters_are_read_as_scoring_reads_them(family, half):
    pytest.importorskip("peft")
    policy = tiny_policy(family)
    torch.manual_seed(0)
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    if family == "qwen3_5":
        targets += ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj")
    add_adapters(policy.model, {"language": LoraPart(r=4, alpha=8, targets=targets)})
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    groups = policy.encode(mixed_problems())

    def difference(responses):
        scored = policy.score(groups, responses.ids, responses.mask)
        return float((scored["image"].logprobs - responses.logprobs)[responses.mask].abs().median())

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        with policy.without_adapters():
            plain = sample(policy)
            assert difference(plain) <= (0.05 if half else 1e-5)
        adapted = sample(policy)
        assert difference(adapted) <= (0.05 if half else 1e-5)
    assert plain.texts != adapted.texts
