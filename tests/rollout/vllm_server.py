"""A vLLM server on this CPU for a test, started by servers/vllm/serve.sh, and what is said to it over HTTP."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from copy import deepcopy
from pathlib import Path

import torch
from model_fixtures import mixed_problems
from safetensors.torch import save_file

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = REPOSITORY / ".server" / "venv"
MAX_MODEL_LEN = 512
KEY = "a key of these tests"


class VLLMServer:
    """One server and the folder it reads weights from.

    Args:
        model: a folder that transformers loads.
        folder: for weights and the log.
        port: on this machine.
        command: that serves; None: as a run's servers are started.
    """

    def __init__(self, model, folder, port, command=None):
        self.url = f"http://127.0.0.1:{port}"
        self.weights = folder / "weights"
        self.weights.mkdir()
        self.log = folder / "server.log"
        started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(
                        command
                        or (REPOSITORY / "servers" / "vllm" / "serve.sh", model, self.weights)
                    ),
                    *("--max-model-len", str(MAX_MODEL_LEN)),
                    *("--limit-mm-per-prompt", '{"image": 2, "video": 0}'),
                ],
                env={
                    **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
                    "CPU": "1",
                    "PORT": str(port),
                    "PYTHON": str(ENVIRONMENT / "bin" / "python"),
                    "PAPO_ROLLOUT_KEY": KEY,
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            while not self._answers():
                assert self.process.poll() is None, self.log.read_text()[-3000:]
                assert time.monotonic() < started + 900, "the server does not come up"
                time.sleep(1)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_start = time.monotonic() - started

    def stop(self):
        # vLLM's worker processes belong to its group.
        for number in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(30)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def _answers(self):
        try:
            return self.ask("/health")[0] == 200
        except OSError:
            return False

    def ask(self, path, body=None, key=KEY):
        """Status and answer: an object, or text where it is none."""
        request = urllib.request.Request(self.url + path)
        if body is not None:
            request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        return status, json.loads(text) if text[:1] == "{" else text

    def post(self, path, body=None):
        status, answer = self.ask(path, body or {})
        assert status == 200, (path, status, answer)
        return answer

    def refusal(self, path, body=None):
        status, answer = self.ask(path, body or {})
        assert status != 200, (path, answer)
        return json.dumps(answer)

    @property
    def version(self):
        return self.ask("/weight_info")[1]["weight_version"]

    @property
    def resident_gigabytes(self):
        """Resident memory of all its processes; pages that they share are counted in each."""
        total = 0
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                if os.getsid(int(status.parent.name)) == self.process.pid:
                    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
                    total += int(lines["VmRSS"].split()[0])
            except OSError:
                continue
        return total * 1024 / 1e9

    def write_parts(self, policy, version, num_parts=2):
        """Names of files with the policy's weights; a tied head is not among these."""
        weights = list(policy.model.named_parameters())
        names = [
            f"{version}-{n:05d}-of-{num_parts:05d}.safetensors" for n in range(1, num_parts + 1)
        ]
        for place, name in enumerate(names):
            part = {key: w.detach().clone() for key, w in weights[place::num_parts]}
            save_file(part, self.weights / name)
        return names

    def sync(self, policy, version):
        self.begin()
        for name in self.write_parts(policy, version):
            self.post("/update_weights", {"update_info": {"name": name}})
        self.end(version)

    def begin(self):
        self.post("/pause?mode=wait")
        self.post("/start_weight_update")

    def end(self, version):
        self.post("/finish_weight_update", {"weight_version": version})
        for cache in ("prefix", "mm", "encoder"):
            self.post(f"/reset_{cache}_cache")
        self.post("/resume")

    def give_up(self):
        """Ends an update that was begun: a part that is refused does."""
        self.ask("/update_weights", {"update_info": {"name": ""}})
        self.post("/resume")

    def generate(self, policy, group, *, num_responses=4, seed=1, max_tokens=24):
        """The answer of /inference/v1/generate for one prompt."""
        pictures = () if group.patches is None else policy.pictures(group.patches, group.pictures)
        return self.post(
            "/inference/v1/generate",
            {
                "model": "policy",
                "token_ids": one_image_token_each(policy, group.prompt_ids.tolist()),
                "content_parts": [{"type": "image_url", "url": png(p)} for p in pictures],
                "return_token_ids": True,
                "sampling_params": {
                    "n": num_responses,
                    "temperature": policy.temperature,
                    "top_p": 1.0,
                    "max_tokens": max_tokens,
                    "seed": seed,
                    "logprobs": 0,
                    "stop_token_ids": list(policy.end_token_ids),
                    "detokenize": False,
                    "logit_bias": {str(i): -100.0 for i in policy.banned_token_ids},
                },
            },
        )


def one_image_token_each(policy, ids):
    """Prompt ids with one image token per picture, as the server wants them: it expands them itself."""
    image = policy.adapter.image_token_id
    return [t for place, t in enumerate(ids) if t != image or ids[place - 1 : place] != [image]]


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def responses(answer):
    """Ids, mask and the server's log-probabilities of an answer, in the order of its indices."""
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    longest = max(len(choice["token_ids"]) for choice in choices)
    ids = torch.zeros(len(choices), longest, dtype=torch.long)
    mask, logprobs = torch.zeros_like(ids, dtype=torch.bool), torch.zeros(ids.shape)
    for row, choice in enumerate(choices):
        length = len(choice["token_ids"])
        ids[row, :length] = torch.tensor(choice["token_ids"])
        mask[row, :length] = True
        logprobs[row, :length] = torch.tensor(
            [token["logprob"] for token in choice["logprobs"]["content"]]
        )
    return ids, mask, logprobs


def largest_difference(policy, group, answer):
    """max |log pi_server - log pi_policy| over the tokens of an answer, in nats."""
    ids, mask, logprobs = responses(answer)
    with torch.no_grad():
        own = policy.score([group], ids, mask)["image"].logprobs
    return float((own - logprobs)[mask].abs().max())


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Served:
    """A server, the policy it was started with, and prompts with one picture, none and two."""

    def __init__(self, name, folder):
        from servers.vllm.tiny_model import tiny_policy

        family, head = name.split()
        self.initial = tiny_policy(family, tied=head == "tied")
        self.initial.save_pretrained(folder / "model")
        self.groups = self.initial.encode(mixed_problems())
        self.server = VLLMServer(folder / "model", folder, free_port())
        self.name, self.count = name, 0
        print(f"{name}: up after {self.server.seconds_to_start:.0f} s")
        print(f"{name}: {self.server.resident_gigabytes:.2f} GB resident")

    def moved(self):
        """A policy as far from all before as some updates lead, and the name of its weights."""
        self.count += 1
        generator = torch.Generator().manual_seed(self.count)
        policy = deepcopy(self.initial)
        with torch.no_grad():
            for weight in policy.parameters():
                weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
        return policy, f"run-{self.count}"

    def synced(self):
        policy, version = self.moved()
        started = time.monotonic()
        self.server.sync(policy, version)
        print(f"{self.name}: {version} taken over in {time.monotonic() - started:.2f} s")
        return policy, version

    def difference(self, policy, **asked):
        found = max(
            largest_difference(policy, group, self.server.generate(policy, group, **asked))
            for group in self.groups
        )
        print(f"{self.name}: largest difference of a log-probability {found:.1e} nats")
        return found


def source(policy, run):
    """The trainer's way to the weights of a policy."""
    from papo.models import checkpoint_weights
    from papo.parallel import Ranks
    from papo.rollout import WeightSource

    return WeightSource(weights=lambda: checkpoint_weights(policy.model), ranks=Ranks(), run=run)
