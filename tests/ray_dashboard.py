"""A stand-in for the dashboard of a Ray cluster: of its Jobs API what `cluster.submit` asks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self


@dataclass
class Dashboard:
    """Answers on a port of its own while the block lasts.

    Attributes:
        mode: `token`, `disabled`, or `unknown` to a version without tokens.
        token: what a request has to show in the first mode.
        jobs: by submission id, in the form in which Ray tells them.
        packages: what was uploaded, by name.
        submitted: the requests that were taken.
        quicker: ids that somebody else submits the moment before.
        nodes: the resources of each node.
        without_agent: submissions that find no agent yet, as in a cluster that has just been started.
        troubled: requests that are answered by 503 from now on, as by a proxy whose server does not answer.
    """

    mode: str = "token"
    token: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    quicker: set[str] = field(default_factory=set)
    nodes: list[dict[str, float]] = field(default_factory=list)
    troubled: int = 0
    troubled_by_a_stop: int = 0
    without_agent: int = 0
    address: str = ""

    def put(self, identifier: str, status: str, **further: Any) -> None:
        """A job that there is."""
        known = {"type": "SUBMISSION", "entrypoint": "sh", "start_time": 1_000 * (len(self.jobs) + 1)}
        self.jobs[identifier] = {**known, "submission_id": identifier, "status": status, **further}

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, shown: str | None, body: bytes) -> tuple[int, Any]:
        """Status and content of an answer; text is an error's."""
        if path == "/api/authentication_mode" and self.mode != "unknown":
            return 200, {"authentication_mode": self.mode}
        if self.troubled:
            self.troubled -= 1
            return 503, "upstream connect error"
        if self.mode == "token" and shown != f"Bearer {self.token}":
            return 403, "Forbidden: Invalid authentication token"
        match method, path.partition("?")[0].strip("/").split("/")[1:]:
            case "GET", ["version"]:
                return 200, {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}
            case "GET", ["jobs"]:
                return 200, list(self.jobs.values())
            case "POST", ["jobs"]:
                return self._submit(json.loads(body))
            case "POST", ["jobs", identifier, "stop"]:
                self.jobs[identifier]["status"] = "STOPPED"
                self.troubled = self.troubled_by_a_stop
                return 200, {"stopped": True}
            case "GET", ["jobs", identifier, "logs"]:
                return 200, {"logs": self.jobs[identifier]["logs"]}
            case "GET", ["v0", "nodes"]:
                return 200, {"result": True, "msg": "", "data": {"result": self._nodes()}}
            case "PUT", ["packages", _, name]:
                self.packages[name] = body
                return 200, {}
            case _:
                return 404, f"{method} {path}: not here"

    def _nodes(self) -> dict[str, Any]:
        found = [
            {"node_id": str(number), "node_ip": "", "is_head_node": not number, "state": "ALIVE", "state_message": "",
             "node_name": "", "labels": {}, "resources_total": resources}
            for number, resources in enumerate(self.nodes)
        ]  # fmt: skip
        counts = dict.fromkeys(("total", "num_after_truncation", "num_filtered"), len(found))
        return {**counts, "result": found, "partial_failure_warning": "", "warnings": []}

    def _submit(self, request: dict[str, Any]) -> tuple[int, Any]:
        if self.without_agent:
            self.without_agent -= 1
            return 500, "No available agent to submit job, please try again later."
        identifier = request["submission_id"]
        if identifier in self.quicker:
            self.put(identifier, "RUNNING")
        if identifier in self.jobs:
            return 500, f"ValueError: Job with submission_id {identifier} already exists."
        self.submitted.append(request)
        self.put(identifier, "PENDING", metadata=request["metadata"])
        return 200, {"job_id": identifier, "submission_id": identifier}


def _handler(dashboard: Dashboard) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            shown = self.headers.get("Authorization")
            status, content = dashboard.answer(self.command, self.path, shown, body)
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815  (names of the base class)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
