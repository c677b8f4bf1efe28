"""Probes of a container: gRPC health, commands, TCP and HTTP."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Executor, Future

from kube.store import Object

Result = tuple[bool, str]


def grpc_health(address: str, service: str, timeout_s: float) -> Result:
    """Ask the standard health service, without TLS as a kubelet does."""
    import grpc

    # HealthCheckRequest is one string with tag 1; HealthCheckResponse one enum, 1 is SERVING
    name = service.encode()
    request = b"\n" + bytes([len(name)]) + name if name else b""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            return False, f"error: {error.code()}: {error.details()}"
    return answer == b"\x08\x01", f"service unhealthy (responded with {answer!r})"


def tcp(host: str, port: int, timeout_s: float) -> Result:
    """Whether somebody listens."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError as error:
        return False, f"dial tcp {host}:{port}: {error}"
    return True, ""


def http(url: str, timeout_s: float) -> Result:
    """Whether the answer is from 200 to 399."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return 200 <= answer.status < 400, ""
    except urllib.error.HTTPError as error:
        error.close()
        return False, f"HTTP probe failed with statuscode: {error.code}"
    except OSError as error:
        return False, f'Get "{url}": {error}'


class Probe:
    """One probe of one run of a container; ``ok`` is None before there is a result."""

    def __init__(self, spec: Object, run: Callable[[Object], Result]):
        self.spec, self.run, self.ok = spec, run, None
        self.message, self.failures = "", 0
        self._successes = 0
        self._next = time.monotonic() + spec.get("initialDelaySeconds", 0)
        self._running: Future | None = None

    def tick(self, pool: Executor) -> bool:
        """Start it when it is due; True when it has failed just now."""
        if self._running is None:
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + self.spec["periodSeconds"]
                self._running = pool.submit(self.run, self.spec)
            return False
        if not self._running.done():
            return False
        good, self.message = self._running.result()
        self._running = None
        self.failures = 0 if good else self.failures + 1
        self._successes = self._successes + 1 if good else 0
        if self._successes >= self.spec["successThreshold"]:
            self.ok = True
        if self.failures >= self.spec["failureThreshold"]:
            self.ok = False
        return not good


def runner(host: str, ports: dict[str, int], execute: Callable[[list[str], float], tuple[int, str]]):
    """How a container's probes are carried out."""

    def port(value: int | str) -> int:
        return ports.get(value, 0) if isinstance(value, str) else value

    def run(spec: Object) -> Result:
        limit = spec["timeoutSeconds"]
        try:
            if "exec" in spec:
                code, said = execute(spec["exec"]["command"], limit)
                return code == 0, said
            if "grpc" in spec:
                address = f"{host}:{spec['grpc']['port']}"
                return grpc_health(address, spec["grpc"].get("service", ""), limit)
            if "tcpSocket" in spec:
                there = spec["tcpSocket"]
                return tcp(there.get("host", host), port(there["port"]), limit)
            there = spec["httpGet"]
            url = f"http://{there.get('host', host)}:{port(there['port'])}{there.get('path', '/')}"
            return http(url, limit)
        except Exception as error:
            return False, f"{type(error).__name__}: {error}"

    return run
