"""Which replica answers for an adapter: always the same, while it lives.

Ray's own routing prefers replicas that have said that they hold a model. A second request that
comes before the word has gone round, or that finds a replica slow to tell its queue, goes to
another one, and the adapter is then held twice for good.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping

from ray.serve.request_router import (
    MultiplexMixin,
    PendingRequest,
    RequestRouter,
    RunningReplica,
)


class Placement:
    """The replica of each adapter. most: so many adapters are remembered for each replica."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._home: OrderedDict[str, str] = OrderedDict()

    def replica(self, adapter: str, running: Mapping[str, Collection[str]]) -> str:
        """The one for `adapter`; `running` maps each replica to the adapters that it says it
        holds. A new adapter goes where the fewest are."""
        home = self._home.get(adapter)
        if home is None or home not in running:
            placed = Counter(self._home.values())
            home = min(running, key=lambda one: (adapter not in running[one], placed[one], one))
        self._home[adapter] = home
        self._home.move_to_end(adapter)
        while len(self._home) > self._most * len(running):
            self._home.popitem(last=False)
        return home


class AdapterRouter(MultiplexMixin, RequestRouter):  # type: ignore[misc]
    """Ray's hook: see "Use Custom Algorithm for Request Routing" in Ray Serve's guide."""

    def initialize_state(self, most: int) -> None:
        """most: adapters that a replica keeps; from `request_router_kwargs`."""
        self._placement = Placement(most)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The adapter's replica alone; for the base all, of which Ray takes the least busy."""
        if pending_request is None or not candidate_replicas:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        adapter = pending_request.metadata.multiplexed_model_id
        if not adapter:
            return [candidate_replicas]
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        held = {name: replica.multiplexed_model_ids for name, replica in by_id.items()}
        return [[by_id[self._placement.replica(adapter, held)]]]
