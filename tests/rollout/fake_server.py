"""A small server of a tiny policy that speaks the HTTP of servers/vllm, and fails as it is told.

Its log-probabilities are real: it holds a copy of the policy, reads prompts as token ids and pictures, and
loads weights from files. `faults` holds names from the list below; a test adds and removes them.
"""

import base64
import io
import json
import threading
from contextlib import contextmanager, suppress
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULTS = (
    "half_update",  # says it has all weights, and has every other one
    "other_tokenizer",  # reads other ids than it is sent
    "truncated",  # ends in the middle of an answer
    "no_json",
    "too_long",  # an answer without an end
    "late",  # a byte now and then
    "stale",  # goes on with the old version
    "two_versions",
    "wrong_ids",
    "banned_id",
    "no_logprobs",
    "minus_infinity",
    "cut",  # stops before an end token
    "one_choice_less",
    "unavailable",  # 503
    "redirect",
    "refuses_weights",
)


class FakeServer:
    """Attributes:
    url: its address.
    policy: its copy.
    version: of its weights.
    paths: what it was asked, in order.
    bodies: what came with it.
    faults: what it does wrong.
    """

    def __init__(self, policy, folder, *, model="policy", max_model_len=512):
        self.policy = deepcopy(policy)
        self.folder = Path(folder)
        self.model, self.max_model_len = model, max_model_len
        self.version, self.pending, self.is_updating = "as started", {}, False
        self.paths, self.bodies, self.headers, self.faults = [], [], [], set()
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self):
        self.released.set()
        self.http.shutdown()
        self.http.server_close()
        self._thread.join()

    def answer(self, path, body):
        """Status and object."""
        if path == "/v1/models":
            return 200, {"data": [{"id": self.model, "max_model_len": self.max_model_len}]}
        if path == "/weight_info":
            return 200, {"weight_version": self.version}
        if path == "/start_weight_update":
            if self.is_updating:
                return 500, {"error": "an update is already active"}
            self.pending, self.is_updating = {}, True
        elif path == "/update_weights":
            return self.take(body["update_info"]["name"])
        elif path == "/finish_weight_update":
            self.load()
            self.is_updating = False
            if "stale" not in self.faults:
                self.version = body["weight_version"]
        elif path == "/inference/v1/generate":
            return 200, self.spoilt(self.generate(body))
        return 200, {}

    def take(self, name):
        from safetensors.torch import load_file

        if not name:
            self.is_updating = False
            return 500, {"error": "a part has a name"}
        if "refuses_weights" in self.faults:
            return 500, {"error": {"message": f"the part {name!r} is damaged"}}
        assert "/" not in name
        assert name.endswith(".safetensors")
        self.pending |= load_file(self.folder / name)
        return 200, {}

    def load(self):
        import torch

        with torch.no_grad():
            parameters = dict(self.policy.named_parameters())
            assert {f"model.{name}" for name in self.pending} == set(parameters)
            for place, (name, value) in enumerate(sorted(self.pending.items())):
                if "half_update" not in self.faults or place % 2:
                    parameters[f"model.{name}"].copy_(value)

    def generate(self, body):
        import torch

        from papo.rollout import SharedPrefillSampler

        settings = body["sampling_params"]
        group = self.read(body["token_ids"], body["content_parts"])
        sampler = SharedPrefillSampler(
            policy=self.policy,
            temperature=settings["temperature"],
            top_p=settings["top_p"],
            top_k=settings["top_k"] or None,
            max_response_tokens=settings["max_tokens"],
            max_rows=64,
        )
        with self.lock, torch.no_grad():
            found = sampler.sample([group], settings["n"], [settings["seed"]])
        choices = []
        for row in range(settings["n"]):
            ids = found.ids[row][found.mask[row]].tolist()
            logprobs = found.logprobs[row][found.mask[row]].tolist()
            choices.append(
                {
                    "index": row,
                    "token_ids": ids,
                    "logprobs": {"content": [{"logprob": value} for value in logprobs]},
                    "finish_reason": "stop" if found.finished[row] else "length",
                    "weight_versions": [{"start": 0, "end": len(ids), "version": self.version}],
                }
            )
        # Nothing says that choices come in their order.
        return {"prompt_token_ids": group.prompt_ids.tolist(), "choices": choices[::-1]}

    def read(self, ids, parts):
        """The prompt as a server reads it: pictures resized, one image token each expanded."""
        import torch
        from PIL import Image

        from papo.types import Problem, PromptGroup

        pictures = [
            Image.open(io.BytesIO(base64.b64decode(part["url"].partition(",")[2])))
            for part in parts
        ]
        patches, layouts = None, ()
        if pictures:
            patches, layouts = self.policy.encoder.process_images(pictures)
        token = self.policy.encoder.image_token_id
        left = (layout.num_tokens for layout in layouts)
        expanded = [i for one in ids for i in ([one] * next(left, 1) if one == token else [one])]
        prompt = torch.tensor(expanded)
        positions, next_position = self.policy.adapter.positions(prompt, layouts)
        return PromptGroup(
            problem=Problem(id="p", question="q", answer="a", images=(), source="server"),
            prompt_ids=prompt,
            position_ids=positions,
            next_position=next_position,
            patches=patches,
            pictures=layouts,
        )

    def spoilt(self, answer):
        first = answer["choices"][0]
        if "other_tokenizer" in self.faults:
            answer["prompt_token_ids"][0] += 1
        if "two_versions" in self.faults:
            first["weight_versions"].append({"start": 1, "end": 2, "version": "x.1"})
        if "wrong_ids" in self.faults:
            first["token_ids"][0] = 10**30
        if "banned_id" in self.faults:
            first["token_ids"][0] = self.policy.banned_token_ids[0]
        if "no_logprobs" in self.faults:
            first["logprobs"] = None
        if "minus_infinity" in self.faults:
            first["logprobs"]["content"][0]["logprob"] = -1e300
        if "cut" in self.faults:
            for name in ("token_ids", "content"):
                values = first[name] if name in first else first["logprobs"][name]
                del values[1:]
        if "one_choice_less" in self.faults:
            answer["choices"].pop()
        return answer


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            self.respond({})

        def do_POST(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self.respond(json.loads(content))

        def respond(self, body):
            path, faults = self.path.partition("?")[0], server.faults
            server.paths.append(self.path)
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            if "unavailable" in faults:
                return self.send(503, b'{"error": "loading"}')
            if "redirect" in faults:
                self.send_response(302)
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                return self.end_headers()
            status, answer = server.answer(path, body)
            content = json.dumps(answer).encode()
            if path == "/inference/v1/generate":
                if "no_json" in faults:
                    content = b"<html>"
                if "too_long" in faults:
                    content += b" " * 30_000_000
                if "truncated" in faults:
                    return self.send(status, content[: len(content) // 2], length=len(content))
                if "late" in faults:
                    return self.drip(content)
            return self.send(status, content)

        def send(self, status, content, length=None):
            self.send_response(status)
            self.send_header("Content-Length", str(length or len(content)))
            self.end_headers()
            # The client may have seen enough.
            with suppress(OSError):
                self.wfile.write(content)

        def drip(self, content):
            self.send_response(200)
            self.end_headers()
            while not server.released.wait(0.02):
                try:
                    self.wfile.write(b" ")
                    self.wfile.flush()
                except OSError:
                    return

    return Handler


@contextmanager
def fake_server(policy, folder, **settings):
    server = FakeServer(policy, folder, **settings)
    try:
        yield server
    finally:
        server.close()
