"""A policy that was trained and exported answers in vLLM and in transformers as it does in its own run.

`make server-test` installs vLLM for a CPU and runs this; nothing else does.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from model_fixtures import noise_image
from vllm_server import ENVIRONMENT, REPOSITORY, VLLMServer, free_port, png

from papo.models.families.qwen_vl import grid_thw

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        os.environ.get("PAPO_TEST_VLLM") != "1",
        reason="needs a vLLM server, which make server-test installs and starts",
    ),
]

RUN = (
    *("+experiment=own_data", "model=tiny_qwen2_5_vl", "logger=csv", "data.prompt_suffix=''"),
    # Attention of vLLM on a CPU takes no smaller heads than of 32.
    *("model.num_heads=2", "model.num_key_value_heads=1", "model.vision_num_heads=2"),
    *("model.initializer_range=0.2", "model.max_pixels=12544", "optimizer.lr=1e-3"),
    *("training.num_rollouts=2", "training.prompts_per_rollout=4"),
    *("training.prompts_per_minibatch=2", "rollout.num_responses=2"),
    "rollout.max_response_tokens=16",
)
LENGTH = 16


def run_python(*words):
    subprocess.run([sys.executable, *words], cwd=REPOSITORY, check=True, timeout=600)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with a run and what was exported of it."""
    folder = tmp_path_factory.mktemp("exported")
    rows = []
    for number in range(4):
        noise_image(60 + 40 * number, 90, number).save(folder / f"{number}.png")
        rows.append({"question": f"What is {number}?", "answer": "1", "image": f"{number}.png"})
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run_python("train.py", *RUN, f"data.path={folder}", f"run_dir={folder / 'run'}")
    run_python("scripts/export_policy.py", folder / "run", folder / "policy")
    return folder


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    serve = (ENVIRONMENT / "bin" / "python", "-m", "vllm.entrypoints.cli.main", "serve")
    port = free_port()
    how = ("--served-model-name", "policy", "--host", "127.0.0.1", "--port", str(port))
    cpu = ("--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **{"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
            **{"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_PLUGINS": "", "VLLM_NO_USAGE_STATS": "1"},
        }.items():
            patch.setenv(name, value)
        server = VLLMServer(
            exported / "policy",
            tmp_path_factory.mktemp("server"),
            port,
            command=(*serve, exported / "policy", *how, *cpu),
        )
    yield server
    server.stop()


@pytest.fixture(scope="module")
def policy(exported):
    """The run's own, from its newest checkpoint."""
    from papo.commands.policy_source import (
        PolicySource,
        folder_model,
        load_policy,
        trained_checkpoint,
    )

    trained = trained_checkpoint(exported / "run")
    model = folder_model(exported / "run", {})
    return load_policy(PolicySource(model=model, trained=trained, location=str(trained)))


def asked(server, group, policy, question, picture):
    """Greedy tokens and their log-probabilities by OpenAI's API; the prompt is the run's, token by token."""
    parts = [
        {"type": "image_url", "image_url": {"url": png(picture)}},
        {"type": "text", "text": question},
    ]
    answer = server.post(
        "/v1/chat/completions",
        {
            "model": "policy",
            "messages": [{"role": "user", "content": parts}],
            **{"temperature": 0, "max_tokens": LENGTH, "logprobs": True, "return_token_ids": True},
        },
    )
    assert answer["prompt_token_ids"] == group.prompt_ids.tolist()
    [choice] = answer["choices"]
    logprobs = [one["logprob"] for one in choice["logprobs"]["content"]]
    return torch.tensor(choice["token_ids"]), torch.tensor(logprobs)


def own_logprobs(policy, group, ids):
    """As the run scores them, but for its ban of vision tokens, of which neither server nor transformers knows."""
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        none = torch.empty(0, dtype=torch.long)
        patch.setattr(type(policy), "_banned_ids", lambda self, device: none)
        found = policy.score([group], ids[None], torch.ones(1, len(ids), dtype=torch.bool))
    return found["image"].logprobs[0]


def by_transformers(folder, group, length):
    """Greedy tokens of the exported folder, and the log-probabilities of all tokens at each."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    prompt = group.prompt_ids[None]
    found = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        mm_token_type_ids=(prompt == image).int(),
        pixel_values=group.patches,
        image_grid_thw=grid_thw(group.pictures),
        do_sample=False,
        max_new_tokens=length,
        return_dict_in_generate=True,
        output_logits=True,
    )
    ids = found.sequences[0, prompt.shape[1] :]
    logprobs = torch.stack(found.logits, 1)[0].log_softmax(-1)
    return ids, logprobs.gather(1, ids[:, None])[:, 0]


def test_an_exported_policy_writes_in_vllm_and_in_transformers_what_it_does_in_its_run(
    exported, server, policy
):
    from papo.types import Problem

    differences = []
    for number in range(4):
        picture = noise_image(60 + 40 * number, 90, number)
        question = f"What is {number}?"
        one = Problem(
            id="1", question=f"<image>{question}", answer="1", images=(picture,), source="test"
        )
        [group] = policy.encode([one])
        # As the vision tower sees it, so that the server's own resizing is the identity.
        [seen] = policy.pictures(group.patches, group.pictures)
        ids, logprobs = asked(server, group, policy, question, seen)
        hf_ids, hf_logprobs = by_transformers(exported / "policy", group, len(ids))
        assert ids.tolist() == hf_ids.tolist()
        own = own_logprobs(policy, group, ids)
        differences.append(
            [
                float((first - second).abs().max())
                for first, second in ((logprobs, own), (hf_logprobs, own), (logprobs, hf_logprobs))
            ]
        )
        _, of_the_file = asked(server, group, policy, question, picture)
        print(f"picture {number} as a file: {float((of_the_file - own).abs().max()):.1e} nats")
    print("vLLM - run, transformers - run, vLLM - transformers:", differences)
    assert max(map(max, differences)) < 1e-4


def test_what_is_served_is_what_was_trained_and_not_the_start(exported, server, policy):
    from papo.commands.policy_source import PolicySource, folder_model, load_policy
    from papo.types import Problem

    start = load_policy(
        PolicySource(model=folder_model(exported / "run", {}), trained=None, location="start")
    )
    picture = noise_image(60, 90, 0)
    one = Problem(
        id="1", question="<image>What is 0?", answer="1", images=(picture,), source="test"
    )
    [group] = policy.encode([one])
    [seen] = policy.pictures(group.patches, group.pictures)
    ids, logprobs = asked(server, group, policy, "What is 0?", seen)
    assert float((logprobs - own_logprobs(start, group, ids)).abs().max()) > 1e-2
