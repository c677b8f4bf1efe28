"""What a site has in an account of AWS: its mark, its launch template, its keys, its instances."""

import json
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...clock import WALL
from ...errors import LaunchError
from ..base import JobSpec
from ..bundle import DOOR, pack
from ..filling import read_door
from . import request
from .cloud import Ec2Cloud
from .options import Ec2Options
from .request import Json, Whose
from .store import DOOR_NAME, as_text
from .userdata import user_data

ENDS_S, LOOK_S = 60.0, 1.0
UNMARKED = "MARK"


class Ec2Place:
    """A site of a federation, as AWS sees it; its methods wait for AWS.

    Parameters
    ----------
    options : Ec2Options
        What the site asks for.
    folder : Path
        The site's folder on this machine.
    federation, site, job_name : str
        What it is called.
    mark : Path
        File with the site's own mark, made when the first instance is asked for: two federations of the
        same name may share an account, and shall not end each other's nodes.
    connect : callable
        Makes the connection.
    """

    def __init__(
        self,
        options: Ec2Options,
        folder: Path,
        federation: str,
        site: str,
        job_name: str,
        mark: Path,
        connect: Callable[[Ec2Options], Ec2Cloud],
    ) -> None:
        self.folder, self.federation, self.site, self.job_name = folder, federation, site, job_name
        self._mark, self._connect = mark, connect
        self._door = ""
        self.ask(options)

    def ask(self, options: Ec2Options) -> None:
        """Go on with other options, for what is made from now on."""
        self.options, self.cloud, self._template = options, self._connect(options), ""

    @property
    def is_marked(self) -> bool:
        """Whether anything was ever asked for."""
        return self._mark.exists()

    @property
    def whose(self) -> Whose:
        """What all that is the site's is marked with."""
        mark = self._mark.read_text().strip() if self._mark.exists() else UNMARKED
        return Whose(self.federation, self.site, f"{self.job_name}-{mark}")

    def render(self, spec: JobSpec) -> str:
        """What would be asked of EC2 for a node."""
        whose = self.whose
        tags = self._tags(spec.name, f"{spec.name}.TICKET")
        text = user_data(self.options, whose.owner)
        data = request.template_data(self.options, whose, "", {}, "ROOT") | {"UserData": "see below"}
        asked = request.fleet(self.options, request.template_name(whose, data), tags, "TOKEN")
        shown = json.dumps({"create_launch_template": data, "create_fleet": asked}, indent=1)
        return f"{shown}\n{text}# which starts: {' '.join(spec.command)}"

    def prepare(self) -> None:
        """Have a mark and a launch template."""
        if not self.is_marked:
            self._mark.parent.mkdir(parents=True, exist_ok=True)
            self._mark.write_text(secrets.token_hex(3))
        if not self._template:
            whose, base = self.whose, self._base()
            image = self.options.image or str(base.get("ImageId", ""))
            if not image:
                raise LaunchError(
                    f"launch template {self.options.launch_template} names no image: give image"
                )
            device = self.cloud.root_device(image)
            text = user_data(self.options, whose.owner)
            data = request.template_data(self.options, whose, text, base, device)
            name = request.template_name(whose, data)
            self.cloud.template(name, data, dict(self.options.tags) | whose.tags())
            self._template = name
        self.tell_door()

    def _base(self) -> Json:
        own = self.options.launch_template
        return self.cloud.template_data(own) if own else {}

    def make(self, spec: JobSpec, ticket: str, attempt: int) -> str:
        """An instance for a node, under the same client token at each call with the same ``attempt``."""
        files = {name: data for name, data in pack(self.folder, [spec]).items() if name != DOOR}
        whose = self.whose
        self.cloud.store(whose.owner).put(ticket, as_text(files), whose.of_node(spec.name, ticket))
        token = request.token_of(whose, ticket, attempt)
        tags = self._tags(spec.name, ticket)
        return self.cloud.create(request.fleet(self.options, self._template, tags, token))

    def _tags(self, node: str, ticket: str) -> dict[str, str]:
        whose = self.whose
        return dict(self.options.tags) | whose.of_node(node, ticket) | {"Name": f"{self.federation} {node}"}

    def forget(self, tickets: Collection[str]) -> None:
        """Remove the keys of nodes that have ended."""
        if self.is_marked:
            self.cloud.store(self.whose.owner).delete(tickets)

    def tell_door(self) -> None:
        """Where the SuperLink is, for all nodes of the site, where that has changed."""
        said = read_door(self.folder / DOOR)
        if said and said != self._door and self.is_marked:
            whose = self.whose
            self.cloud.store(whose.owner).put(DOOR_NAME, said, whose.tags())
            self._door = said

    def instances(self) -> list[Json]:
        """All with the site's mark."""
        return self.cloud.instances(self.whose.owner)

    def notices(self, instances: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """Which spot requests are about to lose their instance, and since when."""
        asked = {one.get("SpotInstanceRequestId", "") for one in instances if not request.is_over(one)} - {""}
        return self.cloud.notices(asked) if asked else {}

    def take_down(self) -> list[str]:
        """End and remove all; says what could not be, in the server's words."""
        if not self.is_marked:
            return []
        owner, left = self.whose.owner, []
        steps: dict[str, Callable[[], None]] = {
            "instances": self._end_instances,
            "keys": lambda: self._end_keys(owner),
            "launch templates": lambda: self._end_templates(owner),
        }
        for what, step in steps.items():
            try:
                step()
            except LaunchError as error:
                left.append(f"{what}: {error}")
        if not left:
            self._mark.unlink(missing_ok=True)
            self._template = self._door = ""
        return left

    def _end_instances(self) -> None:
        until = WALL.now() + ENDS_S
        while live := [one["InstanceId"] for one in self.instances() if not request.is_over(one)]:
            if WALL.now() > until:
                raise LaunchError(f"they do not end: {', '.join(sorted(live))}")
            self.cloud.terminate(live)
            WALL.sleep(LOOK_S)
        self.cloud.delete_fleets(self.instances())

    def _end_keys(self, owner: str) -> None:
        store = self.cloud.store(owner)
        store.delete(store.names())

    def _end_templates(self, owner: str) -> None:
        for name in self.cloud.templates(owner):
            self.cloud.delete_template(name)
