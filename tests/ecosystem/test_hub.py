"""An adapter is pushed to the Hub with its card: over HTTP, to a server of the test."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import torch
from huggingface_hub import ModelCard

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.runtime.state import FILE
from tests.models import model, randomise, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPEC = "lora(q, v, r=2) + ia3(k)"


class Hub(BaseHTTPRequestHandler):
    """Takes what the client of the Hub sends: a repository, then one commit."""

    files: dict[str, bytes]
    asked: list[str]

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.answer({"name": "me", "type": "user", "orgs": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(self.path)
        if self.path.endswith("/preupload/main"):
            named = [one["path"] for one in json.loads(body)["files"]]
            modes = [
                {"path": n, "uploadMode": "regular", "shouldIgnore": False}
                for n in named
            ]
            self.answer({"files": modes})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                said = json.loads(line)
                if said["key"] == "file":
                    content = base64.b64decode(said["value"]["content"])
                    self.files[said["value"]["path"]] = content
            self.answer(
                {
                    "success": True,
                    "commitOid": "0" * 40,
                    "commitUrl": f"{self.at}/me/it/commit/{'0' * 40}",
                }
            )
        else:
            self.answer({"url": f"{self.at}/me/it", "name": "me/it"})

    @property
    def at(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, said: dict[str, Any]) -> None:
        content = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def hub() -> Iterator[tuple[str, type[Hub]]]:
    class Own(Hub):
        """What this server was sent."""

    Own.files, Own.asked = {}, []
    server = HTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", Own
    finally:
        server.shutdown()
        server.server_close()


def test_what_is_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = peftc.compile(model("llama").eval(), SPEC)
    randomise(made)
    with hub() as (address, seen):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
        made.push_to_hub("me/it", results={"loss": 0.25}, token="hf_none")
    assert sorted(seen.files) == ["README.md", FILE]
    assert any("repos/create" in path for path in seen.asked)
    (tmp_path / FILE).write_bytes(seen.files[FILE])
    again = peftc.load(model("llama").eval(), tmp_path)
    assert torch.equal(again(tokens()).logits, made(tokens()).logits)
    card: Any = ModelCard(seen.files["README.md"].decode())
    assert card.data.library_name == "peftc"
    for part in (SPEC, "| q |", "| loss | 0.25 |", "LlamaForCausalLM", "512"):
        assert part in card.text, part


def test_nothing_is_pushed_that_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = peftc.compile(model("llama"), SPEC)
    with torch.no_grad():
        next(p for p in made.parameters() if p.requires_grad).fill_(float("nan"))
    with hub() as (address, seen):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        with pytest.raises(PeftcError, match="PEFT624"):
            made.push_to_hub("me/it", token="hf_none")
    assert not seen.asked


def test_a_card_names_a_base_of_the_hub() -> None:
    made: Any = peftc.compile(model("llama"), SPEC)
    without: Any = ModelCard(made.peftc.card())
    assert without.data.base_model is None
    made.config._name_or_path = "owner/base"
    card: Any = ModelCard(made.peftc.card())
    assert card.data.base_model == "owner/base"
    assert 'from_pretrained("owner/base")' in card.text
