"""A hub of several processes on one PostgreSQL with a synchronous standby, and what may happen to them.

Each node has a proxy of its own before the primary, and another one before the standby.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.nodes.proxy import Proxy, ProxyThread, proxy_thread
from tests.ports import free_ports
from tests.postgresql.programs import server_folder
from tests.postgresql.server import DATABASE, USER, PostgresServer
from tests.process.hub_process import HubProcess, IssuerThread, hub_process, issuer_thread

#: Seconds that a lost subscriber has to come back (RECONNECT_GRACE).
GRACE = 3

#: The one order of events, as transactions of the hub wrote it. A trigger copies each row of the log, in the same
#: transaction, for the hub empties its log after some seconds. The log has effects only where another node must hear of
#: them. So the events are known by the contexts that the same transaction made or removed.
RECORD = """
create schema chaos;
create table chaos.committed (position bigint primary key, topic text not null, xact xid8 not null);
create table chaos.touched (number bigserial, topic text not null, xact xid8 not null, event text not null);
create function chaos.committed() returns trigger language plpgsql as $$ begin
    insert into chaos.committed values (new.position, new.topic, pg_current_xact_id()); return null;
end $$;
create function chaos.opened() returns trigger language plpgsql as $$ begin
    insert into chaos.touched (topic, xact, event)
    values (new.topic, pg_current_xact_id(), 'open ' || substr(new.name, strpos(new.name, '/') + 1)); return null;
end $$;
create function chaos.closed() returns trigger language plpgsql as $$ begin
    insert into chaos.touched (topic, xact, event)
    values (old.topic, pg_current_xact_id(), 'close ' || substr(old.name, strpos(old.name, '/') + 1)); return null;
end $$;
create trigger committed after insert on fhircast.log for each row execute function chaos.committed();
create trigger opened after insert on fhircast.part for each row when (new.kind = 'context')
    execute function chaos.opened();
create trigger closed after delete on fhircast.part for each row when (old.kind = 'context')
    execute function chaos.closed();
"""
ORDER = """
select c.topic, t.event from chaos.committed c join chaos.touched t on t.xact = c.xact and t.topic = c.topic
order by c.position, t.number
"""


class Cluster:
    """Running hubs, and their database. Node numbers begin at 0. `make_all` comes first."""

    def __init__(self, nodes: int, folder: Path, data: Path, issuer: IssuerThread, ways: ProxyThread) -> None:
        self.issuer = issuer
        self._ways, self._folder, self._data = ways, folder, data
        self._secret = secrets.token_urlsafe(32)
        self.ports = list(free_ports(nodes))
        self._stores: list[str] = []
        #: The present process of each node. None: the node was ended.
        self.hubs: list[HubProcess | None] = [None for _ in self.ports]
        #: All servers of the database that ever were, newest last. Two of them live: places of the URL's hosts.
        self._servers: list[PostgresServer] = []
        self._places: list[PostgresServer] = []
        self.server = self._kept(PostgresServer.make(data / "0", fsync=True, wal_retrieve_retry_interval="200ms"))

    def make_all(self) -> None:
        """Start the database, its standby and all nodes. Record the order of events from now on."""
        self.server.start()
        self._places = [self.server, self._new_standby()]
        for _ in self.ports:
            ways = ",".join(f"127.0.0.1:{self._ways.add(server.port)}" for server in self._places)
            self._stores.append(f"postgresql://{USER}:{quote(self.server.password, safe='')}@{ways}/{DATABASE}")
        for number in range(len(self.ports)):
            self.start(number)
        self.server.psql(RECORD)

    def _kept(self, server: PostgresServer) -> PostgresServer:
        self._servers.append(server)
        return server

    def _new_standby(self) -> PostgresServer:
        """A standby that follows the primary. Each commit waits for it from now on."""
        standby = self._kept(self.server.standby(self._data / str(len(self._servers))))
        standby.start()
        self.server.make_synchronous()
        return standby

    def fail_over(self) -> None:
        """The primary is killed, the standby takes over, and a new standby follows in the primary's place."""
        place = self._places.index(self.server)
        self.server.crash()
        self.server = self._places[1 - place]
        self.server.promote()
        self._places[place] = standby = self._new_standby()
        self._ways.do(lambda proxy: proxy.lead_to(standby.port), range(place, 2 * len(self.ports), 2))

    def on_the_way(self, act: Callable[[Proxy], None], nodes: Iterable[int]) -> None:
        """Do something to the proxies of these nodes at one time."""
        self._ways.do(act, [2 * node + place for node in nodes for place in (0, 1)])

    def start(self, number: int) -> None:
        """Start a node, also after its end, and wait until it is ready."""
        hub = hub_process(
            self._folder,
            port=self.ports[number],
            store=self._stores[number],
            issuers=self.issuer.settings,
            secret_key=self._secret,
            reconnect_grace=GRACE,
            rate_limit_token=0,
            rate_limit_address=0,
        )
        self.hubs[number] = hub
        hub.wait_until_ready()

    def kill(self, number: int) -> None:
        """SIGKILL: the node is gone at once."""
        self.end(number, signal.SIGKILL)

    def terminate(self, number: int) -> int:
        """SIGTERM; the exit code."""
        return self.end(number, signal.SIGTERM)

    def stop(self, number: int) -> None:
        """SIGSTOP: the node sleeps."""
        self.hub(number).send(signal.SIGSTOP)

    def cont(self, number: int) -> None:
        """SIGCONT: the node wakes up."""
        self.hub(number).send(signal.SIGCONT)

    def end(self, number: int, by: signal.Signals) -> int:
        """End a node by a signal; the exit code."""
        hub = self.hub(number)
        self.hubs[number] = None
        return hub.stop(by)

    def hub(self, number: int) -> HubProcess:
        """The process of a node that runs."""
        hub = self.hubs[number]
        assert hub is not None, f"node {number} was ended"
        return hub

    def orders(self) -> dict[str, list[str]]:
        """The order of events of each topic: `open` or `close`, and the id of the patient."""
        orders: dict[str, list[str]] = {}
        for line in self.server.psql(ORDER).splitlines():
            topic, _, event = line.partition("|")
            orders.setdefault(topic, []).append(event)
        return orders

    def kill_all(self) -> None:
        """Leave nothing behind."""
        for hub in self.hubs:
            if hub is not None:
                hub.__exit__()
        for server in self._servers:
            server.crash()


@contextmanager
def cluster(nodes: int, folder: Path) -> Iterator[Cluster]:
    """Nodes that are ready; `folder` gets what they print. The database loses nothing that was acknowledged."""
    with ExitStack() as stack:
        issuer = stack.enter_context(issuer_thread())
        ways = stack.enter_context(proxy_thread())
        data = stack.enter_context(server_folder())
        made = Cluster(nodes, folder, data, issuer, ways)
        stack.callback(made.kill_all)
        made.make_all()
        yield made
