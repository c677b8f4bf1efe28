"""The accounting of a test cluster: a private MariaDB, slurmdbd, and who may run what."""

import contextlib
import subprocess
from typing import TYPE_CHECKING

from slurm.conf import user_name

if TYPE_CHECKING:
    from slurm.cluster import SlurmCluster

PROGRAMS = ["slurmdbd", "mariadbd", "mariadb", "mariadb-install-db"]

GRANTS = """
create database slurm_acct;
create user 'slurm'@'localhost' identified by 'test';
create user 'slurm'@'127.0.0.1' identified by 'test';
grant all on slurm_acct.* to 'slurm'@'localhost';
grant all on slurm_acct.* to 'slurm'@'127.0.0.1';
"""


def start(cluster: "SlurmCluster", ports: dict[str, int]) -> None:
    """Start database and slurmdbd, and let the cluster's user submit to account ``fl``."""
    sql = cluster.folder / "sql"
    # root must be named; the mysql user could not enter the folders of pytest
    common = ["--no-defaults", f"--user={user_name()}", f"--datadir={sql}"]
    cluster.daemon(
        "install", "mariadb-install-db", *common, "--skip-test-db", "--auth-root-authentication-method=normal"
    )
    options = ["--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0"]
    options += ["--innodb-log-file-size=8M", "--innodb-lock-wait-timeout=900"]  # slurmdbd asks for the second
    where = [f"--socket={sql}/sql.sock", f"--port={ports['mariadbd']}", "--bind-address=127.0.0.1"]
    # it does not detach by itself; setsid: Ctrl-C in a terminal is not meant for it
    cluster.daemon("mariadbd", "setsid", "--fork", "mariadbd", *common, *options, *where)
    client = ["mariadb", "--no-defaults", "-S", f"{sql}/sql.sock", "-uroot", "-e"]
    cluster.wait_until(lambda: _works(cluster, *client, "select 1"), 60)
    cluster.run(*client, GRANTS)
    cluster.daemon("slurmdbd", "slurmdbd")  # its configuration lies beside slurm.conf
    cluster.wait_until(lambda: _works(cluster, "sacctmgr", "-n", "show", "cluster"), 60)
    user = user_name()
    for words in (
        "add cluster test",
        "add account fl Description=fl Organization=test",
        "add qos high Priority=1000",
        "add qos tiny MaxSubmitJobsPerUser=2",
        # slurmdbd knows root as an administrator, who all the same needs leave to use the account
        f"add user {user} Account=fl DefaultAccount=fl",
        f"modify user {user} set DefaultAccount=fl QOS=normal,high,tiny DefaultQOS=normal",
    ):
        cluster.run("sacctmgr", "-iQ", *words.split())


def _works(cluster: "SlurmCluster", *command: str) -> bool:
    with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
        cluster.run(*command, timeout_s=5)
        return True
    return False
