"""A ZooKeeper server for three masters to elect a leader with: its command line, its configuration, its readiness."""

import socket
from pathlib import Path

from scheduler.cluster_binaries import ZooKeeper

CONFIGURATION = "zoo.cfg"
TICK_MS = 500  # sessions last 2 to 20 of these
REQUEST_TIMEOUT_S = 1.0


def zookeeper_command(installed: ZooKeeper, home: Path) -> tuple[str, ...]:
    """Arguments of the server whose configuration lies in `home`."""
    return (
        str(installed.java),
        "-Xmx128m",
        "-XX:TieredStopAtLevel=1",  # it starts faster, and does next to nothing
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        ":".join(map(str, installed.jars)),
        "org.apache.zookeeper.server.ZooKeeperServerMain",
        str(home / CONFIGURATION),
    )


def write_configuration(home: Path, ip: str, port: int) -> None:
    """Writes the file that `zookeeper_command` names."""
    lines = {
        "dataDir": home / "data",
        "clientPort": port,
        "clientPortAddress": ip,
        "tickTime": TICK_MS,
        "maxClientCnxns": 0,  # unlimited: all daemons come from one address
        "admin.enableServer": "false",
    }
    (home / CONFIGURATION).write_text("".join(f"{name}={value}\n" for name, value in lines.items()))


def zookeeper_serves(ip: str, port: int) -> bool:
    """True once it serves requests; it listens a little earlier, and a client refused then waits for seconds."""
    try:
        with socket.create_connection((ip, port), REQUEST_TIMEOUT_S) as connection:
            connection.settimeout(REQUEST_TIMEOUT_S)
            connection.sendall(b"srvr")
            answer = b""
            while received := connection.recv(4096):
                answer += received
    except OSError:
        return False
    return b"Mode:" in answer
