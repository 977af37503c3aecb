-- The event log: every change that an object shows, in the transaction that made it. Range-partitioned by day, made ahead.

CREATE TABLE events (
    namespace  text        NOT NULL,
    rv         bigint      NOT NULL,
    seq        integer     NOT NULL,
    kind       text        NOT NULL,
    subject    uuid,
    name       text        NOT NULL,
    chat_id    uuid,
    agent_id   uuid,
    chat_seq   bigint,
    payload    jsonb       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT events_pkey PRIMARY KEY (namespace, rv, seq, created_at),
    CONSTRAINT events_kind_known CHECK (kind IN (
        'ChatCreated', 'ChatUpdated', 'ChatDeleted', 'AgentCreated', 'AgentUpdated', 'AgentDeleted',
        'ContextHydrated', 'ContextDrifted', 'ContextConverged', 'ContextRefreshed', 'AgentRebound', 'ContextCleared',
        'SnapshotAccepted', 'SnapshotDeleted'))
) PARTITION BY RANGE (created_at);

CREATE INDEX events_version ON events (rv, seq);

CREATE TABLE events_default PARTITION OF events DEFAULT;

COMMENT ON TABLE events IS 'What happened, in (rv, seq) order, up to a horizon that the reader fetches before the rows. Written once, dropped by the day.';
COMMENT ON TABLE events_default IS 'Events of a day that has no partition. Should be empty; watched by the metric moorline_events_default_rows.';
COMMENT ON COLUMN events.namespace IS 'Of the object.';
COMMENT ON COLUMN events.rv IS 'Version of the transaction that wrote it: epoch << 44 | xid.';
COMMENT ON COLUMN events.seq IS 'Numbered by the writer within its transaction, from 1.';
COMMENT ON COLUMN events.kind IS 'What happened: DESIGN.md §6.';
COMMENT ON COLUMN events.subject IS 'The object''s uid; none for snapshots, which are known by name.';
COMMENT ON COLUMN events.name IS 'The object''s name.';
COMMENT ON COLUMN events.chat_id IS 'The chat it is about, if it is.';
COMMENT ON COLUMN events.agent_id IS 'The agent it is about, or whose snapshot the chat uses.';
COMMENT ON COLUMN events.chat_seq IS 'Numbers the chat''s events, from 1.';
COMMENT ON COLUMN events.payload IS 'What the transaction saw: hashes, names, counts, what it changed of labels and selectable fields as they were before; on deletion the object. Never a body.';
COMMENT ON COLUMN events.created_at IS 'When the transaction began.';

CREATE FUNCTION events_make_ahead(days integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    day   date;
    made  integer := 0;
BEGIN
    -- One at a time; the others find the work done.
    PERFORM pg_advisory_xact_lock(hashtextextended('moorline.events_make_ahead', 0));
    FOR day IN SELECT today + n FROM generate_series(0, days) AS n LOOP
        IF to_regclass('events_' || to_char(day, 'YYYYMMDD')) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)',
                               'events_' || to_char(day, 'YYYYMMDD'),
                               to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00',
                               to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00');
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                -- The default partition already holds events of that day: they are read from there until retention
                -- takes them. The metric says so.
                NULL;
            END;
        END IF;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION events_make_ahead(integer) IS 'Makes the partitions of today (UTC) and of the given number of days after it that are missing, and returns how many it made.';

SELECT events_make_ahead(7);
