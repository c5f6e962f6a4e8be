"""A Ray cluster of several nodes on this machine, whose nodes can be lost: for trials of what a run bears."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from ray._private import worker
from ray._private.authentication.authentication_token_setup import (
    enable_token_auth_by_default,
    ensure_token_if_auth_enabled,
)
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lightning_fed.errors import FederationError
from lightning_fed.federation.cluster import in_time, own_end

PIECE = 8 * 2**20
"""Bytes of one object that fills a store."""


class Nodes:
    """A head that trains nothing and so is a driver's node, and others of one CPU each, which have hospitals.

    Args:
        count: of the others. store: bytes of each node's object store.
    """

    def __init__(self, count: int, store: int = 100 * 2**20) -> None:
        enable_token_auth_by_default()
        ensure_token_if_auth_enabled()  # as ray.init does: the first Ray of a machine makes the token
        self.store, self._numbers, self._print = store, 1, worker.print_to_stdstream
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": store}
        with own_end(), in_time():
            self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(count):
                self.add()
            # Ray would print pages about each node that is lost.
            worker.print_to_stdstream = _print_nothing
            with own_end():
                ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """As `ray.address` takes it."""
        return str(self._cluster.address)

    @property
    def others(self) -> list[Any]:
        """The nodes that can be lost."""
        return list(self._cluster.worker_nodes)

    def add(self) -> None:
        """One more node, at an address of its own: a driver joins the node whose address is its own."""
        self._numbers += 1
        address = f"127.0.{self._numbers // 250}.{self._numbers % 250 + 1}"
        with own_end(), in_time():
            self._cluster.add_node(num_cpus=1, node_ip_address=address, object_store_memory=self.store)

    def lose(self, place: int) -> None:
        """End a node at once, with all processes on it."""
        self._cluster.remove_node(self.others[place], allow_graceful=False)

    @property
    def logs(self) -> Path:
        """Where Ray's processes write."""
        return Path(self._cluster.head_node.get_session_dir_path()) / "logs"

    @contextmanager
    def full_stores(self) -> Iterator[None]:
        """More objects in every node's store than it holds, so that it has to write others to disk."""
        pieces = self.store // PIECE + 2
        held: list[Any] = []
        for there in self._everywhere():
            filled: Any = _fill.options(scheduling_strategy=there, num_returns=pieces).remote(pieces)
            held += filled
        ray.wait(held, num_returns=len(held), timeout=30)
        yield
        del held

    @contextmanager
    def holding(self, content: bytes) -> Iterator[None]:
        """An object in every node's store."""
        held = [_copy.options(scheduling_strategy=there).remote(content) for there in self._everywhere()]
        ray.wait(held, num_returns=len(held), timeout=30)
        yield
        del held

    def _everywhere(self) -> list[NodeAffinitySchedulingStrategy]:
        living = [node["NodeID"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        return [NodeAffinitySchedulingStrategy(node, soft=False) for node in living]

    def stores(self) -> Iterator[Path]:
        """The memory of the object stores that live, as files that can be read."""
        for process in psutil.Process().children(recursive=True):
            if process.name() == "raylet":
                folder = Path(f"/proc/{process.pid}/fd")
                found = [entry for entry in folder.iterdir() if "plasma" in _target(entry)]
                if not found:
                    raise FederationError(f"the object store of process {process.pid} cannot be looked into")
                yield from found

    def close(self) -> None:
        """End the nodes."""
        ray.shutdown()
        worker.print_to_stdstream = self._print
        self._cluster.shutdown()


def _print_nothing(*arguments: Any, **options: Any) -> None:
    """In place of Ray's own."""


@ray.remote(num_cpus=0)
def _fill(pieces: int) -> Any:
    return tuple(np.zeros(PIECE, dtype=np.uint8) for _ in range(pieces))


@ray.remote(num_cpus=0)
def _copy(content: bytes) -> Any:
    return np.frombuffer(content, dtype=np.uint8).copy()


def _target(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:
        return ""
