-- The tables and functions of a hub's database, version 1. `fhircast-hub store upgrade` makes them in the schema "fhircast".
--
-- A session is a row of `session` and rows of `part`, as in SQLite (storage/rows.py). One function writes, in one statement:
-- so no client holds a lock while the client sleeps or dies, and a commit takes one round trip.

create schema fhircast;

create table fhircast.hub (
    one boolean primary key default true check (one),
    version integer not null,
    key bytea not null, -- of the keyed hashes in logs, the same on every node
    truncated bigint not null default 0 -- the newest position that the log has not any more
);

create table fhircast.node (
    name text primary key,
    release text not null,
    started timestamptz not null default clock_timestamp(),
    seen timestamptz not null default clock_timestamp(),
    dead boolean not null default false -- for good: a node that was asleep begins anew under another name
) with (fillfactor = 50);

create table fhircast.session (
    realm text not null,
    topic text not null,
    revision bigint not null, -- position of the last commit in the log; no two commits of all sessions share one
    owner text not null default '',
    deadline double precision, -- epoch seconds; null: never
    last_used double precision not null default 0, -- epoch seconds
    begun double precision not null default 0, -- epoch seconds of POST /sessions; 0: begun otherwise
    bytes bigint not null default 0,
    subscriptions integer not null default 0,
    nodes text[] not null default '{}', -- those with sockets, posts or raw tokens of the session
    primary key (realm, topic)
) with (fillfactor = 70);
create index session_deadline on fhircast.session (deadline) where deadline is not null;
create index session_owner on fhircast.session (realm, owner) where owner <> '';
create index session_idle on fhircast.session (last_used) where subscriptions = 0;
create index session_nodes on fhircast.session using gin (nodes);

create table fhircast.part (
    realm text not null,
    topic text not null,
    kind text not null,
    name text not null,
    body bytea not null,
    primary key (realm, topic, kind, name)
) with (fillfactor = 70);

create table fhircast.subscription (
    id text primary key,
    realm text not null,
    topic text not null,
    subscriber text not null,
    issuer text not null,
    client text not null,
    connected boolean not null,
    since double precision not null, -- epoch seconds: when the connection began or was lost
    place text not null -- of a verified callback: scheme, host and port; else ''
) with (fillfactor = 70);
create index subscription_subscriber on fhircast.subscription (realm, subscriber);

create table fhircast.owner (
    realm text not null,
    owner text not null,
    sessions bigint not null,
    bytes bigint not null,
    primary key (realm, owner)
) with (fillfactor = 70);

-- The log has one row for each commit, in the order of the commits. Each slot holds ten seconds of every eighty, and is
-- emptied whole: nothing is deleted row by row.
create sequence fhircast.position;
create table fhircast.log (
    slot smallint not null,
    position bigint not null,
    written timestamptz not null,
    realm text not null,
    topic text not null,
    previous bigint not null, -- the session's revision before; 0: the session is new
    origin text not null, -- the node that committed
    nodes text[] not null, -- those that must hear of the commit
    changes bytea, -- null: no other node than the writer must hear
    effects bytea
) partition by list (slot);
create table fhircast.log_0 partition of fhircast.log for values in (0);
create table fhircast.log_1 partition of fhircast.log for values in (1);
create table fhircast.log_2 partition of fhircast.log for values in (2);
create table fhircast.log_3 partition of fhircast.log for values in (3);
create table fhircast.log_4 partition of fhircast.log for values in (4);
create table fhircast.log_5 partition of fhircast.log for values in (5);
create table fhircast.log_6 partition of fhircast.log for values in (6);
create table fhircast.log_7 partition of fhircast.log for values in (7);
create index log_position on fhircast.log (position);

create function fhircast.slot_1(at timestamptz) returns smallint language sql immutable as $$
    select ((extract(epoch from at)::bigint / 10) % 8)::smallint
$$;

-- Refuses a node that was marked dead. With `fencing`, nobody can mark the node before the transaction ends: who marks a
-- node locks its row `for update` first (mark_1).
create function fhircast.check_node_1(node_name text, fencing boolean) returns void language plpgsql as $$
begin
    if fencing then
        perform from fhircast.node where name = node_name and not dead for key share;
    else
        perform from fhircast.node where name = node_name and not dead;
    end if;
    if not found then
        raise exception 'node % was marked dead', node_name using errcode = 'FHC01';
    end if;
end
$$;

-- Commits changes of different sessions: those whose revision is still the expected one. Returns place and new revision of
-- each, and `written` of their rows in the log; the others are stale. Array elements at one place belong to one session; `part_place` and `sub_place` name the place.
create function fhircast.commit_1(
    node_name text,
    realms text[], topics text[], expected bigint[], gone boolean[], owners text[], deadlines double precision[],
    used double precision[], begun_at double precision[], sizes bigint[], counts integer[], nodes_after text[], nodes_told text[],
    max_bytes bigint[], max_sessions integer[], max_subscriptions integer[], log_changes bytea[], log_effects bytea[],
    part_place integer[], part_kind text[], part_name text[], part_body bytea[],
    sub_place integer[], sub_id text[], sub_gone boolean[], sub_new boolean[], sub_subscriber text[], sub_issuer text[], sub_client text[],
    sub_connected boolean[], sub_since double precision[], sub_callback text[]
) returns table (place integer, revision bigint, committed_at timestamptz)
language plpgsql
set plan_cache_mode = force_generic_plan -- planning anew costs small groups more than their work
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    fresh integer[];
    existing integer[];
    over text;
    at timestamptz;
    slot_now smallint;
begin
    perform fhircast.check_node_1(node_name, true);

    -- Sessions are locked in sorted order, so that two groups never wait for each other.
    with made as (
        insert into fhircast.session (realm, topic, revision)
        select c.realm, c.topic, 0 from unnest(realms, topics, expected) as c(realm, topic, expected)
        where c.expected = 0 order by c.realm, c.topic
        on conflict do nothing
        returning realm, topic
    )
    select coalesce(array_agg(c.place::integer), '{}') into fresh
    from unnest(realms, topics) with ordinality as c(realm, topic, place)
    join made on made.realm = c.realm and made.topic = c.topic;

    select coalesce(array_agg(locked.place), '{}') into existing from (
        select c.place::integer as place
        from unnest(realms, topics, expected) with ordinality as c(realm, topic, expected, place)
        join fhircast.session s on s.realm = c.realm and s.topic = c.topic and s.revision = c.expected
        where c.expected <> 0
        order by c.realm, c.topic
        for update of s
    ) as locked;
    fresh := fresh || existing;
    if cardinality(fresh) = 0 then
        return;
    end if;

    -- What users hold. A commit that exceeds a limit ends the whole group: the node tries the others again without it.
    with grown as (
        select s.realm, s.owner, -1 as sessions, -s.bytes as bytes
        from unnest(fresh) as f(place)
        join fhircast.session s on s.realm = realms[f.place] and s.topic = topics[f.place]
        where s.owner <> ''
        union all
        select realms[f.place], owners[f.place], 1, sizes[f.place]
        from unnest(fresh) as f(place)
        where owners[f.place] <> '' and not gone[f.place]
    )
    insert into fhircast.owner as o (realm, owner, sessions, bytes)
    select g.realm, g.owner, sum(g.sessions), sum(g.bytes) from grown g group by g.realm, g.owner
    having sum(g.sessions) <> 0 or sum(g.bytes) <> 0 order by g.realm, g.owner
    on conflict (realm, owner) do update set sessions = o.sessions + excluded.sessions, bytes = o.bytes + excluded.bytes;

    -- `offset 0` keeps the two lookups apart. Else, without statistics, each place may read all sessions of its realm.
    select string_agg(f.place::text, ',') into over
    from unnest(fresh) as f(place)
    cross join lateral (
        select s.revision, s.bytes from fhircast.session s
        where s.realm = realms[f.place] and s.topic = topics[f.place] offset 0
    ) s
    cross join lateral (
        select o.sessions, o.bytes from fhircast.owner o
        where o.realm = realms[f.place] and o.owner = owners[f.place] offset 0
    ) o
    where not gone[f.place] and (
        (sizes[f.place] > s.bytes and o.bytes > max_bytes[f.place])
        or (s.revision = 0 and o.sessions > max_sessions[f.place])
    );
    if over is not null then
        raise exception 'limits are exceeded' using errcode = 'FHC02', detail = over;
    end if;

    insert into fhircast.part as p (realm, topic, kind, name, body)
    select realms[c.place], topics[c.place], c.kind, c.name, c.body
    from unnest(part_place, part_kind, part_name, part_body) as c(place, kind, name, body)
    where c.body is not null and c.place = any(fresh)
    on conflict (realm, topic, kind, name) do update set body = excluded.body;

    delete from fhircast.part p
    using unnest(fresh) as f(place)
    where gone[f.place] and p.realm = realms[f.place] and p.topic = topics[f.place];

    delete from fhircast.part p
    using unnest(part_place, part_kind, part_name, part_body) as c(place, kind, name, body)
    where c.body is null and c.place = any(fresh)
        and p.realm = realms[c.place] and p.topic = topics[c.place] and p.kind = c.kind and p.name = c.name;

    if cardinality(sub_place) > 0 then
        delete from fhircast.subscription s
        using unnest(sub_place, sub_id, sub_gone) as c(place, id, gone)
        where c.gone and c.place = any(fresh) and s.id = c.id;

        insert into fhircast.subscription as s
            (id, realm, topic, subscriber, issuer, client, connected, since, place)
        select c.id, realms[c.place], topics[c.place], c.subscriber, c.issuer, c.client, c.connected, c.since, c.callback
        from unnest(
            sub_place, sub_id, sub_gone, sub_subscriber, sub_issuer, sub_client, sub_connected, sub_since, sub_callback
        ) as c(place, id, gone, subscriber, issuer, client, connected, since, callback)
        where not c.gone and c.place = any(fresh) order by c.id
        on conflict (id) do update set connected = excluded.connected, since = excluded.since, place = excluded.place,
            issuer = excluded.issuer, client = excluded.client, subscriber = excluded.subscriber;
    end if;

    -- From here to the end of the commit, groups come one after the other. So positions become visible in their order,
    -- and who has read up to a position never misses a lower one.
    perform pg_advisory_xact_lock(7423, 1);
    at := clock_timestamp();
    slot_now := fhircast.slot_1(at);
    -- The node does not wait for longer (database.py), and has told its client that the outcome is unknown.
    if at - statement_timestamp() > interval '4 seconds' then
        raise exception 'the commit comes too late' using errcode = 'FHC04';
    end if;
    perform pg_notify('fhircast', '');

    if true = any(sub_new) then
        select string_agg(distinct c.place::text, ',') into over
        from unnest(sub_place, sub_new, sub_subscriber) as c(place, new, subscriber)
        where c.new and c.place = any(fresh) and max_subscriptions[c.place] < (
            select count(*) from fhircast.subscription s
            where s.realm = realms[c.place] and s.subscriber = c.subscriber
        );
        if over is not null then
            raise exception 'limits are exceeded' using errcode = 'FHC02', detail = over;
        end if;
    end if;

    return query
    with committed as (
        select f.place, nextval('fhircast.position') as position from unnest(fresh) as f(place)
    ), logged as (
        insert into fhircast.log (slot, position, written, realm, topic, previous, origin, nodes, changes, effects)
        select slot_now, c.position, at, realms[c.place], topics[c.place], expected[c.place], node_name,
            string_to_array(nodes_told[c.place], ','), log_changes[c.place], log_effects[c.place]
        from committed c
    ), moved as (
        update fhircast.session s
        set revision = c.position, owner = owners[c.place], deadline = deadlines[c.place], last_used = used[c.place],
            begun = begun_at[c.place], bytes = sizes[c.place], subscriptions = counts[c.place],
            nodes = string_to_array(nodes_after[c.place], ',')
        from committed c
        where not gone[c.place] and s.realm = realms[c.place] and s.topic = topics[c.place]
    ), forgotten as (
        delete from fhircast.session s using committed c
        where gone[c.place] and s.realm = realms[c.place] and s.topic = topics[c.place]
    )
    select c.place, c.position, at from committed c;
end
$$;

-- The log after a position, at most `most` rows. Rows that this node need not hear of have only their position.
-- `after_written` is `written` of the row at `after`, by which a log that has lost its end is known: a standby without the
-- last commits took over, and gives their positions again. Null: the log was empty up to `after`.
create function fhircast.follow_1(node_name text, after bigint, after_written timestamptz, most integer)
returns table (
    log_position bigint, log_written timestamptz, own boolean, told boolean,
    realm text, topic text, previous bigint, changes bytea, effects bytea
)
language plpgsql
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    known boolean := exists (
        select from fhircast.log l where l.position = after and l.written is not distinct from after_written
    );
    kept_from bigint;
begin
    return query
    select l.position, l.written, l.origin = node_name, l.nodes @> array[node_name], l.realm, l.topic, l.previous,
        case when l.nodes @> array[node_name] then l.changes end,
        case when l.nodes @> array[node_name] then l.effects end
    from fhircast.log l where l.position > after order by l.position limit most;
    -- Later than the rows: a slot that was emptied meanwhile is seen here, for its end and this number come together.
    select h.truncated into kept_from from fhircast.hub h;
    if kept_from > after or (kept_from < after and not known) then
        raise exception 'the log does not reach back to position %', after using errcode = 'FHC03';
    end if;
    perform fhircast.check_node_1(node_name, false);
end
$$;

-- The newest position of the log, and `written` of its row. Null: the log is empty.
create function fhircast.newest_1() returns table (log_position bigint, log_written timestamptz) language plpgsql
set enable_seqscan = off
as $$
begin
    return query select l.position, l.written from fhircast.log l order by l.position desc limit 1;
    if not found then
        return query select h.truncated, null::timestamptz from fhircast.hub h;
    end if;
end
$$;

-- A sign of life. Returns the database's time, in epoch seconds.
create function fhircast.beat_1(node_name text) returns double precision language plpgsql as $$
begin
    update fhircast.node set seen = clock_timestamp() where name = node_name and not dead;
    if not found then
        raise exception 'node % was marked dead', node_name using errcode = 'FHC01';
    end if;
    return extract(epoch from clock_timestamp());
end
$$;

-- Marks a node dead, if it has given no sign of life since `last_seen` (null: in any case). What the node has under way is
-- committed before, or never.
create function fhircast.mark_1(node_name text, last_seen timestamptz) returns void language plpgsql as $$
begin
    perform from fhircast.node where name = node_name and (last_seen is null or seen = last_seen) for update skip locked;
    if found then
        update fhircast.node set dead = true where name = node_name;
    end if;
end
$$;

-- Marks the node that asks dead, and waits for what it has under way.
create function fhircast.leave_1(node_name text) returns void language plpgsql as $$
begin
    perform from fhircast.node where name = node_name for update;
    update fhircast.node set dead = true where name = node_name;
end
$$;

-- Some sessions that have something of a node, in another order for each `seed`.
create function fhircast.sessions_of_1(node_name text, seed text, most integer)
returns table (realm text, topic text) language sql stable
set enable_seqscan = off
as $$
    select s.realm, s.topic from fhircast.session s where s.nodes @> array[node_name]
    order by hashtext(s.topic || seed) limit most
$$;

-- Forgets a dead node whose sessions were all looked after.
create function fhircast.forget_node_1(node_name text) returns void language plpgsql
set enable_seqscan = off
as $$
begin
    perform from fhircast.node where name = node_name and dead for update;
    -- A statement of its own: a commit that held the node's row until now is seen here.
    if found and not exists (select from fhircast.session s where s.nodes @> array[node_name]) then
        delete from fhircast.node where name = node_name;
    end if;
end
$$;

-- Empties the slots of the log that are older than thirty seconds, where nobody reads them. The slot that comes next is left.
create function fhircast.tidy_1() returns void language plpgsql as $$
declare
    present integer := fhircast.slot_1(clock_timestamp());
    newest bigint;
    slot text;
begin
    if not pg_try_advisory_xact_lock(7423, 2) then
        return;
    end if;
    delete from fhircast.owner o using (
        select o.realm, o.owner from fhircast.owner o where o.sessions = 0 for update skip locked
    ) idle where o.realm = idle.realm and o.owner = idle.owner;
    for age in 4..6 loop
        slot := format('log_%s', (present - age + 8) % 8);
        begin
            execute format('lock table fhircast.%I in access exclusive mode nowait', slot);
        exception when lock_not_available then
            continue;
        end;
        execute format('select max(position) from fhircast.%I', slot) into newest;
        if newest is not null then
            execute format('truncate fhircast.%I', slot);
            update fhircast.hub set truncated = greatest(truncated, newest);
        end if;
    end loop;
end
$$;
