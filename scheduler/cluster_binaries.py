"""Where the programs of the embedded cluster are: Mesos as docker/mesos builds it, Java and ZooKeeper of Debian."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scheduler.cluster_errors import ClusterError

MESOS_PROGRAMS = ("mesos-master", "mesos-agent", "mesos-containerizer", "mesos-fetcher")
ZOOKEEPER_JARS = (Path("/usr/share/java/zookeeper.jar"), Path("/usr/share/java/slf4j-simple.jar"))


@dataclass(frozen=True)
class ZooKeeper:
    """A Java virtual machine and what it needs to be a ZooKeeper server."""

    java: Path
    jars: tuple[Path, ...]


def mesograd_home(environment: Mapping[str, str] = os.environ) -> Path:
    """$MESOGRAD_HOME, else ~/.mesograd: where state that belongs to no checkout lives."""
    home = environment.get("MESOGRAD_HOME")
    return Path(home).absolute() if home else Path.home() / ".mesograd"


def checkout() -> Path | None:
    """The directory of pyproject.toml when this package runs from a checkout, else None."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else None


def find_mesos(environment: Mapping[str, str] = os.environ) -> Path:
    """Directory with bin/mesos-master and the others: $MESOGRAD_MESOS, else of the checkout, else of the home.

    Raises:
        ClusterError: none of them holds Mesos; names the place looked at and the make target.
    """
    chosen = environment.get("MESOGRAD_MESOS")
    if chosen:
        candidates = [Path(chosen).absolute()]
    else:
        root = checkout()
        candidates = [root / ".cache" / "mesos"] if root else []
        candidates.append(mesograd_home(environment) / "mesos")
    for candidate in candidates:
        if all(os.access(candidate / "bin" / program, os.X_OK) for program in MESOS_PROGRAMS):
            return candidate
    raise ClusterError(
        f"no Mesos in {' or '.join(map(str, candidates))}: run `make mesos` in a checkout of mesograd, "
        "or set MESOGRAD_MESOS to the directory that docker/mesos/build.sh filled",
        exit_code=2,
    )


def find_zookeeper() -> ZooKeeper:
    """Java and Debian's ZooKeeper.

    Raises:
        ClusterError: one of them is not installed; names the packages.
    """
    java = shutil.which("java")
    if java is None or not all(jar.exists() for jar in ZOOKEEPER_JARS):
        raise ClusterError(
            "three masters need ZooKeeper: apt-get install libzookeeper-java libslf4j-java default-jre-headless",
            exit_code=2,
        )
    return ZooKeeper(Path(java), ZOOKEEPER_JARS)
