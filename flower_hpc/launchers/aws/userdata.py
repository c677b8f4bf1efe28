"""What an instance does at its first boot: a cloud-config that installs and starts a SuperNode.

It is the same for all nodes of a site and holds no secret: which node it is, an instance reads from its own
tags, and its key from where its role may.
"""

import shlex

import yaml

from ...errors import ConfigError
from ..bundle import HOME, ROOT
from .options import Ec2Options

USER = UNIT = "flower-hpc"
VENV = "/opt/flower-hpc"
BIN = "/usr/local/sbin/flower-hpc"
GIVE_UP = 77
"""Exit code of a node that nobody needs any more: its instance shuts down, and is gone."""
MOST_BYTES = 16384
INSTALL = """#!/bin/bash
# installs and starts a SuperNode; what goes wrong is in /var/log/cloud-init-output.log
set -euo pipefail
trap 'shutdown -h +15 "flower-hpc: could not be installed"' ERR
{life}
export HOME=/root DEBIAN_FRONTEND=noninteractive
bash -e {bin}-setup
id -u {user} >/dev/null 2>&1 || useradd --system --home-dir {home} --shell /usr/sbin/nologin {user}
install -d -m 0700 -o {user} -g {user} {root} {home}
{python}
systemctl daemon-reload
systemctl enable --now {user}.service
"""
OWN_PYTHON = """find_python() {{
  local name
  for name in python3 python3.13 python3.12 python3.11; do
    if "$name" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  return 1
}}
if ! python="$(find_python)"; then
  if command -v dnf >/dev/null; then
    dnf -y -q install python3.11
  else
    apt-get -qq update && apt-get -qq install -y python3-venv
  fi
  python="$(find_python)"
fi
"$python" -m venv {venv}
{venv}/bin/python -m pip install --quiet {package}"""
ENDED = """#!/bin/bash
# after the node has ended; systemd says how
set -u
if [ "${{EXIT_STATUS:-}}" = {code} ]; then
  systemctl --no-block poweroff
fi
"""
SERVICE = """[Unit]
Description=flower-hpc SuperNode
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
User={user}
ExecStart={command}
ExecStopPost=+{bin}-ended
Restart=always
RestartSec=10
RestartPreventExitStatus={code}
# the node itself tells its work to end; what is left after the grace is killed
KillMode=mixed
TimeoutStopSec={stop_s}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
UMask=0077
StateDirectory=flower-hpc
StateDirectoryMode=0700
ReadWritePaths={root}
Environment=HOME={home} PYTHONUNBUFFERED=1
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
"""


class _Blocks(yaml.SafeDumper):
    """Writes what has several lines as it is, for people to read."""


_Blocks.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def user_data(options: Ec2Options, owner: str) -> str:
    """The cloud-config for a site's nodes; ``owner`` is the mark of what is theirs.

    Raises
    ------
    ConfigError
        It is longer than EC2 takes.
    """
    scripts = {"install": install(options), "setup": setup(options), "ended": ended()}
    files = [
        {"path": f"{BIN}-{name}", "permissions": "0755", "content": text} for name, text in scripts.items()
    ]
    files.append({"path": f"/etc/systemd/system/{UNIT}.service", "content": service(options, owner)})
    config = yaml.dump(
        {"write_files": files, "runcmd": [[f"{BIN}-install"]]}, Dumper=_Blocks, sort_keys=False
    )
    text = f"#cloud-config\n{config}"
    if len(text.encode()) > MOST_BYTES:
        raise ConfigError(f"setup must fit into {MOST_BYTES} bytes of user data, got {len(text.encode())}")
    return text


def install(options: Ec2Options) -> str:
    """The script of the first boot."""
    life = f'shutdown -h +{options.max_hours * 60} "flower-hpc: max_hours"' if options.max_hours else ""
    package = shlex.join(shlex.split(options.package))
    python = "" if options.python else OWN_PYTHON.format(venv=VENV, package=package)
    return INSTALL.format(life=life, bin=BIN, user=USER, home=HOME, root=ROOT, python=python)


def setup(options: Ec2Options) -> str:
    """The site's own lines."""
    return "\n".join(("#!/bin/bash", *options.setup, ""))


def ended() -> str:
    """What shuts the instance down once its node gives up."""
    return ENDED.format(code=GIVE_UP)


def service(options: Ec2Options, owner: str) -> str:
    """The node's systemd unit."""
    # systemd reads % and $ in its own way
    command = shlex.join(command_of(options, owner)).replace("%", "%%").replace("$", "$$")
    # the pilot's own grace, and a little for the sign-off
    stop_s = options.grace_s + 15
    names = {"user": USER, "bin": BIN, "code": GIVE_UP, "root": ROOT, "home": HOME}
    return SERVICE.format(command=command, stop_s=stop_s, **names)


def command_of(options: Ec2Options, owner: str) -> list[str]:
    """What the unit runs."""
    words = [options.python or f"{VENV}/bin/python", "-m", "flower_hpc.launchers.aws.node"]
    words += ["--owner", owner, "--keys", options.keys, "--grace-s", str(options.grace_s)]
    words += ["--patience-min", str(options.patience_min)]
    if options.region:
        words += ["--region", options.region]
    return words + (["--endpoint-url", options.endpoint_url] if options.endpoint_url else [])
