"""A small local stand-in for W&B's server: the calls that `wandb agent` and an online run make, and no more.

It hands out the points of a sweep one by one, keeps what runs send, and answers everything else with an error.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY, PROJECT = "somebody", "somewhere"


@dataclass
class StandIn:
    """What the server knows.

    Args:
        name, config: of the sweep. points: parameters of its runs, in order.
    """

    name: str
    config: dict[str, Any]
    points: Sequence[dict[str, Any]]
    url: str = ""
    given: int = 0
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL call."""
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        method = getattr(self, f"on_{found[1]}" if found else "", None)
        if method is None:
            self.unknown.append(found[1] if found else query[:80])
            raise LookupError(self.unknown[-1])
        data: dict[str, Any] = method(variables)
        return data

    def on_Viewer(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "V", "entity": ENTITY, "username": ENTITY, "teams": {"edges": []}, "flags": "{}"}}

    def on_SweepWithRuns(self, variables: dict[str, Any]) -> dict[str, Any]:
        sweep = {"id": "S", "name": self.name, "state": "RUNNING", "config": yaml.safe_dump(self.config)}
        return {"project": {"sweep": sweep | {"runs": {"edges": []}}}}

    def on_CreateAgent(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "A"}}}

    def on_Heartbeat(self, variables: dict[str, Any]) -> dict[str, Any]:
        busy = any(json.loads(variables["runState"]).values())
        commands: list[dict[str, Any]] = []
        if not busy and self.given == len(self.points):
            commands = [{"type": "exit"}]
        elif not busy:
            values = {key: {"value": value} for key, value in self.points[self.given].items()}
            commands = [{"type": "run", "run_id": f"run{self.given}", "args": values, "program": ""}]
            self.given += 1
        return {"agentHeartbeat": {"agent": {"id": "A"}, "commands": json.dumps(commands)}}

    def on_RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"model": {"bucket": None}}

    def on_UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = str(variables.get("name") or variables.get("id"))
        new = name not in self.runs
        self.runs.setdefault(name, {}).update({key: value for key, value in variables.items() if value})
        project = {"id": "P", "name": PROJECT, "entity": {"id": "E", "name": ENTITY}}
        bucket = {
            **{"id": name, "name": name, "displayName": name, "sweepName": self.name, "historyLineCount": 0},
            **{"config": "{}", "project": project},
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def stream(self, run: str, sent: dict[str, Any]) -> None:
        """What a run's file stream sends."""
        for name, part in (sent.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]] if name.endswith((".jsonl", ".json")) else []
            if name == "wandb-history.jsonl":
                self.history.setdefault(run, []).extend(lines)
            if name == "wandb-summary.json" and lines:
                self.summaries[run] = lines[-1]
        if "exitcode" in sent and sent.get("complete"):
            self.ended[run] = sent["exitcode"]


@contextmanager
def serving(stand_in: StandIn) -> Iterator[StandIn]:
    """Answer on a free port of this machine until the end of the block; `stand_in.url` says where."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(stand_in))
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]  # of callers that hang up
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()


def _handler_of(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            answer: dict[str, Any] = {}
            if self.path == "/graphql":
                asked = json.loads(body)
                try:
                    answer = {"data": stand_in.answer(asked["query"], asked.get("variables") or {})}
                except LookupError as error:
                    answer = {"data": None, "errors": [{"message": f"unknown: {error}"}]}
            elif self.path.endswith("/file_stream"):
                stand_in.stream(self.path.split("/")[-2], json.loads(body))
            sent = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_PUT = do_POST

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    return Handler
