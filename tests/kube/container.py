"""One container of a pod: its waits, its runs, its restarts, and what the pod's status says of it."""

import re
import signal
import time
import uuid
from pathlib import Path
from typing import Any

from kube import environment, probes, sandbox
from kube.environment import ConfigError
from kube.knobs import pretends
from kube.process import Pretended, Process
from kube.store import Object, now

LONGEST_BACKOFF_S = 300
REFERENCE = re.compile(r"[a-z0-9]+([._/:-][A-Za-z0-9_.]+|-+[A-Za-z0-9_.]+)*(@sha256:[0-9a-f]{64})?")


class Container:
    """The kubelet's picture of a container; ``pod`` is its `kube.pod.PodWorker`."""

    def __init__(self, pod: Any, spec: Object, init: bool = False):
        self.pod, self.spec, self.init, self.name = pod, spec, init, spec["name"]
        self.state: Object = {
            "waiting": {"reason": "PodInitializing" if pod.has_init else "ContainerCreating"}
        }
        self.last: Object = {}
        self.restarts = self.pulls = 0
        self.process: Process | Pretended | None = None
        self.probes: dict[str, probes.Probe] = {}
        self.id = ""
        self.reason = ""  # why it was killed from outside, such as OOMKilled
        self.next_start = time.monotonic() + pod.kubelet.knobs.delay_s(spec.get("image", ""))
        self.env: dict[str, str] = {}

    @property
    def running(self) -> bool:
        """Whether it has a process."""
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        """Of the run that has just ended."""
        return self.state.get("terminated", {}).get("exitCode")

    @property
    def started(self) -> bool:
        """Whether it runs and its startup probe has succeeded."""
        return self.running and ("startupProbe" not in self.probes or self.probes["startupProbe"].ok is True)

    @property
    def ready(self) -> bool:
        """Whether it may be counted on."""
        if self.init:
            return self.exit_code == 0
        probe = self.probes.get("readinessProbe")
        return self.started and (probe is None or probe.ok is True)

    def tick(self, may_start: bool) -> None:
        """One turn: notice an end, probe, start or restart."""
        if self.process is not None:
            code = self.process.exit_code()
            if code is not None:
                self._ended(code)
            else:
                self._probe()
        elif may_start and self._wanted() and time.monotonic() >= self.next_start:
            self._start()

    def _wanted(self) -> bool:
        policy = self.pod.object["spec"]["restartPolicy"]
        if self.init and policy == "Always":
            policy = "OnFailure"
        code = (
            self.exit_code if "terminated" in self.state else self.last.get("terminated", {}).get("exitCode")
        )
        return code is None or policy == "Always" or (policy == "OnFailure" and code != 0)

    def _waiting(self, reason: str, message: str = "") -> None:
        self.state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}

    def _start(self) -> None:
        if not self._image():
            return
        try:
            self.process = self._run()
        except ConfigError as error:
            self._waiting("CreateContainerConfigError", str(error))
            self.pod.event("Failed", f"Error: {error}", warning=True)
            self.next_start = time.monotonic() + 0.5
            return
        self.id, self.reason = uuid.uuid4().hex * 2, ""
        self.state = {"running": {"startedAt": now()}}
        self.pod.event("Created", f"Container created: {self.name}")
        self.pod.event("Started", f"Container started: {self.name}")
        run = probes.runner(self.pod.ip, self._ports(), self.execute)
        self.probes = {
            kind: probes.Probe(self.spec[kind], run)
            for kind in ("startupProbe", "livenessProbe", "readinessProbe")
            if kind in self.spec and not pretends(self.spec["image"])
        }

    def _ports(self) -> dict[str, int]:
        return {p["name"]: p["containerPort"] for p in self.spec.get("ports", []) if "name" in p}

    def _image(self) -> bool:
        image, policy = self.spec["image"], self.spec["imagePullPolicy"]
        if not REFERENCE.fullmatch(image):
            said = f'couldn\'t parse image name "{image}": invalid reference format'
            self._waiting("InvalidImageName", f'Failed to apply default image tag "{image}": {said}')
            self.pod.event("InspectFailed", self.state["waiting"]["message"], warning=True)
            self.next_start = time.monotonic() + 1
            return False
        if self.pod.kubelet.knobs.knows(image):
            self.pod.event("Pulled", f'Container image "{image}" already present on machine')
            return True
        if policy == "Never":
            said = f'Container image "{image}" is not present with pull policy of Never'
            self._waiting("ErrImageNeverPull", said)
            self.pod.event("ErrImageNeverPull", said, warning=True)
            self.next_start = time.monotonic() + 1
            return False
        self._failed_pull(image)
        return False

    def _failed_pull(self, image: str) -> None:
        if self.pulls % 2 == 0:
            said = (
                f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": '
                "pull access denied, repository does not exist or may require authorization"
            )
            self._waiting("ErrImagePull", said)
            self.pod.event("Pulling", f'Pulling image "{image}"')
            self.pod.event("Failed", f'Failed to pull image "{image}": {said}', warning=True)
            self.pod.event("Failed", "Error: ErrImagePull", warning=True)
            self.next_start = time.monotonic() + 0.5
        else:
            self._waiting("ImagePullBackOff", f'Back-off pulling image "{image}"')
            self.pod.event("BackOff", f'Back-off pulling image "{image}"')
            self.pod.event("Failed", "Error: ImagePullBackOff", warning=True)
            self.next_start = time.monotonic() + self._backoff(self.pulls // 2 + 1)
        self.pulls += 1

    def _backoff(self, times: int) -> float:
        return min(LONGEST_BACKOFF_S, self.pod.kubelet.knobs.backoff_s * 2 ** (times - 1))

    @property
    def log(self) -> Path:
        """Where the newest run writes."""
        return self.pod.log_folder(self.name) / f"{self.restarts}.log"

    def _run(self) -> Process | Pretended:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        if pretends(self.spec["image"]):
            return Pretended()
        pod, context = self.pod.object, self.pod.object["spec"].get("securityContext", {})
        context = context | self.spec.get("securityContext", {})
        if context.get("runAsNonRoot") and not context.get("runAsUser"):
            who = (
                f'(pod: "{pod["metadata"]["name"]}_{pod["metadata"]["namespace"]}({pod["metadata"]["uid"]})"'
            )
            said = f"container has runAsNonRoot and image will run as root {who}, container: {self.name})"
            raise ConfigError(said)
        # the first status is not written yet
        addresses = {"podIP": self.pod.ip, "hostIP": "127.0.0.1"}
        pod = pod | {"status": pod.get("status", {}) | addresses}
        self.env = environment.variables(self.pod.store, pod, self.spec, self.pod.image_env())
        words = environment.command(self.spec, self.env) or [
            "sh",
            "-c",
            "echo no command specified >&2; exit 128",
        ]
        mounts = [self.pod.volumes.mount(pod, m, self.env) for m in self.spec.get("volumeMounts", [])]
        message = self.pod.folder / f"{self.name}.message"
        message.write_text("")
        message.chmod(0o666)
        files = self.pod.files() | {self.spec["terminationMessagePath"]: message}

        def build(info: int) -> list[str]:
            return sandbox.arguments(pod, self.spec, mounts, files, info)

        return Process(build, words, self.env, self.log)

    def execute(self, words: list[str], timeout_s: float) -> tuple[int, str]:
        """Run a command inside."""
        if self.process is None:
            return 126, "container not running"
        return self.process.execute([environment.expand(w, self.env) for w in words], self.env, timeout_s)

    def _probe(self) -> None:
        for kind, probe in self.probes.items():
            if kind != "startupProbe" and not self.started:
                continue
            if kind == "startupProbe" and probe.ok:
                continue
            if probe.tick(self.pod.kubelet.pool):
                word = kind.removesuffix("Probe").capitalize()
                self.pod.event("Unhealthy", f"{word} probe failed: {probe.message}"[:1000], warning=True)
            if probe.ok is False and kind != "readinessProbe" and not self.pod.ending:
                said = f"Container {self.name} failed {kind.removesuffix('Probe')} probe, will be restarted"
                self.pod.event("Killing", said)
                self.pod.stop_container(self, self.pod.object["spec"]["terminationGracePeriodSeconds"])
                self.probes = {}

    def _ended(self, code: int) -> None:
        run, why = self.process, self.process.setup_error()
        self.process, self.probes = None, {}
        reason = self.reason or ("Completed" if code == 0 else "Error")
        ended: Object = {"exitCode": code, "reason": reason}
        if why:
            said = f"failed to create containerd task: OCI runtime create failed: {why}"
            ended = {"exitCode": 128, "reason": "StartError", "message": said}
            self.pod.event("Failed", f"Error: {said}", warning=True)
        elif text := self._message(code):
            ended["message"] = text
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started))
        ended |= {"startedAt": stamp, "finishedAt": now(), "containerID": f"containerd://{self.id}"}
        self.state = {"terminated": ended}
        if self.pod.ending or not self._wanted():
            return
        self._schedule_restart(ended, run)

    def _schedule_restart(self, ended: Object, run: Process | Pretended) -> None:
        self.last, self.restarts = {"terminated": ended}, self.restarts + 1
        if time.time() - run.started > 2 * LONGEST_BACKOFF_S:
            self.crashes = 0
        self.crashes = getattr(self, "crashes", 0) + 1
        if self.crashes < 2:  # the first time at once
            return
        wait = self._backoff(self.crashes - 1)
        meta = self.pod.object["metadata"]
        who = f"pod={meta['name']}_{meta['namespace']}({meta['uid']})"
        said = f"back-off {wait:g}s restarting failed container={self.name} {who}"
        self._waiting("CrashLoopBackOff", said)
        said = f"Back-off restarting failed container {self.name} in pod {who.removeprefix('pod=')}"
        self.pod.event("BackOff", said, warning=True)
        self.next_start = time.monotonic() + wait

    def _message(self, code: int) -> str:
        path = self.pod.folder / f"{self.name}.message"
        text = path.read_text(errors="replace")[:4096] if path.exists() else ""
        fallback = self.spec["terminationMessagePolicy"] == "FallbackToLogsOnError"
        if not text and fallback and code:
            lines = self.log.read_text(errors="replace")[-2048:].splitlines(keepends=True)
            text = "".join(lines[-80:])
        return text

    def stop(self) -> None:
        """Ask for the end."""
        if self.process is not None:
            self.process.signal(signal.SIGTERM)

    def status(self) -> Object:
        """The entry of ``containerStatuses``."""
        image = self.spec["image"]
        found = {
            "name": self.name,
            "image": image,
            "imageID": f"sha256:{'0' * 64}" if self.id else "",
            "state": self.state,
            "lastState": self.last,
            "ready": self.ready,
            "restartCount": self.restarts,
            "started": self.started,
        }
        return found | ({"containerID": f"containerd://{self.id}"} if self.id else {})
