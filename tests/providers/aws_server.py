"""Amazon Braket and S3 on the loopback, for boto3's AWS_ENDPOINT_URL: tasks run on Braket's local simulator."""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from braket.default_simulator import StateVectorSimulator
from braket.ir.openqasm import Program, ProgramSet

from .aws_devices import devices


class AwsServer:
    """The service: its devices, its tasks, and how it is told to fail.

    Attributes:
        faults: Pairs of an operation, such as ``CreateQuantumTask``, and a fault; each strikes once, in order.
        answers: What happens to all answers to an operation, see ``aws_faults.py``, until it is taken out.
        split: Whether the parts of program sets' results are objects of their own, as they are for some devices.
        held: Whether new tasks stay in the queue until :meth:`release`.
        calls: Operations that were asked for, in order.
        bodies: What was sent with each ``CreateQuantumTask``.
    """

    def __init__(self):
        self.devices, self.tasks, self.objects = devices(), {}, {}
        self.faults, self.held, self.calls, self.bodies = deque(), False, [], []
        self.fail_tasks = 0
        self.answers, self.split = {}, False
        self._lock = threading.Lock()

    def fault(self, operation):
        """Return the fault that strikes this operation now, or None."""
        if self.faults and self.faults[0][0] == operation:
            return self.faults.popleft()[1]
        return None

    def create(self, body, region):
        """Create a task, or return the one its client token made before."""
        self.bodies.append(body)
        for arn, task in self.tasks.items():
            if task["token"] == body["clientToken"]:
                return 201, {"quantumTaskArn": arn}
        number = len(self.tasks) + 1
        arn = f"arn:aws:braket:{region}:123456789012:quantum-task/{number:08d}-0000-0000-0000-000000000000"
        self.tasks[arn] = task = {
            "token": body["clientToken"],
            "action": body["action"],
            "region": region,
            "meta": {
                "quantumTaskArn": arn,
                "status": "QUEUED",
                "deviceArn": body["deviceArn"],
                "deviceParameters": "{}",
                "shots": body["shots"],
                "outputS3Bucket": body["outputS3Bucket"],
                "outputS3Directory": f"{body['outputS3KeyPrefix']}/{number}",
                "createdAt": datetime.now(UTC).isoformat(),
                "tags": body.get("tags", {}),
                "associations": body.get("associations", []),
                "queueInfo": {"queue": "QUANTUM_TASKS_QUEUE", "position": str(number + 2), "queuePriority": "Normal"},
                "actionMetadata": {"actionType": json.loads(body["action"])["braketSchemaHeader"]["name"]},
            },
        }
        if self.fail_tasks:
            self.fail_tasks -= 1
            task["meta"] |= {"status": "FAILED", "failureReason": "the cryostat warmed up"}
        elif not self.held:
            self.run(task)
        return 201, {"quantumTaskArn": arn}

    def run(self, task):
        """Run a task and leave its result in S3."""
        meta, simulator = task["meta"], StateVectorSimulator()
        action = json.loads(task["action"])
        if action["braketSchemaHeader"]["name"] == "braket.ir.openqasm.program_set":
            program_set = ProgramSet.parse_obj(action)
            count = sum(len(next(iter((one.inputs or {"": [0]}).values()))) for one in program_set.programs)
            result = simulator.run(program_set, shots=meta["shots"])
            meta["actionMetadata"] |= {"programCount": len(program_set.programs), "executableCount": count}
        else:
            result = simulator.run(Program.parse_obj(action), shots=meta["shots"])
            result.additionalMetadata.simulatorMetadata = {"executionDuration": 6000}
        folder = f"{meta['outputS3Bucket']}/{meta['outputS3Directory']}"
        self.objects[f"{folder}/results.json"] = result.json()
        if self.split:
            self.objects |= split(json.loads(result.json()), meta["outputS3Bucket"], meta["outputS3Directory"])
        meta |= {"status": "COMPLETED", "numSuccessfulShots": meta["shots"], "endedAt": datetime.now(UTC).isoformat()}
        meta["queueInfo"] |= {"position": "None"}

    def release(self):
        """Run what waits in the queue."""
        self.held = False
        for task in self.tasks.values():
            if task["meta"]["status"] == "QUEUED":
                self.run(task)

    def answer(self, method, path, query, body, region):
        """Return the operation, the status and the body of an answer."""
        if method == "POST" and path == "/devices":
            found = [
                {key: value for key, value in device.items() if key != "deviceCapabilities"}
                for arn, device in self.devices.items()
                if arn.split(":")[3] in ("", region)
            ]
            return 200, {"devices": found}
        if path.startswith("/device/"):
            device = self.devices.get(unquote(path.removeprefix("/device/")))
            if device is None or device["deviceArn"].split(":")[3] not in ("", region):
                return 404, {"__type": "ResourceNotFoundException", "message": "no such device"}
            return 200, {"deviceQueueInfo": []} | device | {
                "deviceCapabilities": json.dumps(device["deviceCapabilities"])
            }
        if method == "POST" and path == "/quantum-task":
            if self.devices[body["deviceArn"]]["deviceStatus"] != "ONLINE":
                return 424, {"__type": "DeviceOfflineException", "message": "offline"}
            return self.create(body, region)
        if method == "POST" and path == "/quantum-tasks":
            wanted = {item["name"]: item["values"] for item in body["filters"]}
            found = [task["meta"] for task in self.tasks.values() if task["region"] == region]
            found = [meta for meta in found if meta["deviceArn"] in wanted["deviceArn"]]
            start = int(body.get("nextToken", 0))
            page = {"quantumTasks": list(reversed(found))[start : start + 2]}  # small pages
            return 200, page | ({"nextToken": str(start + 2)} if start + 2 < len(found) else {})
        if path.startswith("/quantum-task/"):
            arn = unquote(path.removeprefix("/quantum-task/").removesuffix("/cancel"))
            if arn not in self.tasks:
                return 404, {"__type": "ResourceNotFoundException", "message": "no such task"}
            meta = self.tasks[arn]["meta"]
            if method == "GET":
                return 200, meta
            if meta["status"] != "QUEUED":
                return 409, {"__type": "ConflictException", "message": "it has ended"}
            meta["status"] = "CANCELLED"
            return 200, {"quantumTaskArn": arn, "cancellationStatus": "CANCELLED"}
        key = unquote(path.lstrip("/"))
        return (200, self.objects[key]) if key in self.objects else (404, None)


def split(result, bucket, folder):
    """Return the objects in S3 of a program set's result, each under its key."""
    objects, names = {}, []
    for number, program in enumerate(result["programResults"]):
        here, entries = f"{bucket}/{folder}/programs/{number}", []
        for index, entry in enumerate(program["executableResults"]):
            objects[f"{here}/executables/{index}.json"] = json.dumps(entry)
            entries.append(f"executables/{index}.json")
        objects[f"{here}/program.json"] = json.dumps(program["source"])
        whole = {**program, "executableResults": entries, "source": "program.json"}
        objects[f"{here}/results.json"] = json.dumps(whole)
        names.append(f"programs/{number}/results.json")
    objects[f"{bucket}/{folder}/metadata.json"] = json.dumps(result["taskMetadata"])
    parts = {"programResults": names, "taskMetadata": "metadata.json", "s3Location": [bucket, folder]}
    return objects | {f"{bucket}/{folder}/results.json": json.dumps(result | parts)}


OPERATIONS = [
    ("POST", r"/devices", "SearchDevices"),
    ("GET", r"/device/.*", "GetDevice"),
    ("POST", r"/quantum-task", "CreateQuantumTask"),
    ("POST", r"/quantum-tasks", "SearchQuantumTasks"),
    ("PUT", r"/quantum-task/.*/cancel", "CancelQuantumTask"),
    ("GET", r"/quantum-task/.*", "GetQuantumTask"),
    ("GET", r"/.*", "GetObject"),
]
FAULTS = {  # status, type, headers
    "throttle": (429, "ThrottlingException", {"Retry-After": "7"}),
    "broken": (500, "InternalServiceException", {}),
    "denied": (403, "AccessDeniedException", {}),
    "identity": (403, "InvalidSignatureException", {}),
    "invalid": (400, "ValidationException", {}),
    "slow": (503, "SlowDown", {}),
    "forbidden": (403, "AccessDenied", {}),
    "quota": (402, "ServiceQuotaExceededException", {}),
}


def handler_of(server):
    """Return the request handler of a service."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm, wbufsize = True, -1  # an answer is one packet, at once

        def serve(self):
            path, query = urlsplit(self.path)[2:4]
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length)
            found = re.search(r"Credential=[^/]+/\d+/([^/]+)/", self.headers.get("Authorization", ""))
            operation = next(
                name for method, form, name in OPERATIONS if method == self.command and re.fullmatch(form, path)
            )
            with server._lock:
                server.calls.append(operation)
                fault = server.fault(operation)
                if fault in FAULTS:
                    status, kind, headers = FAULTS[fault]
                    if operation == "GetObject":
                        return self.send(
                            status, f"<Error><Code>{kind}</Code><Message>as told</Message></Error>", headers
                        )
                    return self.send(status, {"__type": kind, "message": "as told"}, headers)
                if fault == "drop":
                    return self.drop()
                changed = server.answers.get(operation)
                if changed is not None and not changed.served:
                    return self.change(operation, changed, 400, "")
                status, answer = server.answer(
                    self.command, path, query, json.loads(text) if text else {}, found[1] if found else ""
                )
                if fault == "drop_answer":
                    return self.drop()
            if changed is not None:
                return self.change(operation, changed, status, answer)
            return self.send(status, answer, {})

        def change(self, operation, fault, status, answer):
            if fault.lost == "all":
                return self.drop()
            body = json.dumps(answer) if isinstance(answer, dict) else answer or ""
            status, body, headers = fault.answer(operation, status, body.encode())
            self.write(status, body, headers, sent=len(body) // 2 if fault.lost else len(body))
            if fault.lost:
                self.drop()

        def send(self, status, answer, headers):
            if isinstance(answer, dict):
                headers = {"x-amzn-ErrorType": answer["__type"]} | headers if "__type" in answer else headers
                text = json.dumps(answer).encode()
            elif answer is None:
                text = b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"
            else:
                text = answer.encode()
            self.write(status, text, headers, sent=len(text))

        def write(self, status, body, headers, sent):
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers, "Content-Length": len(body)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body[:sent])

        def drop(self):
            self.close_connection = True

        do_GET = do_POST = do_PUT = serve

        def log_message(self, *_):
            pass

    return Handler


@contextmanager
def aws_service(monkeypatch, tmp_path):
    """Start a service, point AWS's SDK at it, and stop it at the end."""
    server = AwsServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(server))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{http.server_port}",
        "AWS_ACCESS_KEY_ID": "AKIDTESTKEY",
        "AWS_SECRET_ACCESS_KEY": "a-very-secret-key",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
