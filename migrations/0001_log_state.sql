-- The versions of objects and of the event log: where they come from, and how a copy of the database is told from the
-- original. Rules and their reasons: the page docs/event-log.md.

CREATE TABLE log_state (
    only_row          boolean     NOT NULL DEFAULT true,
    epoch             bigint      NOT NULL,
    floor             bigint      NOT NULL,
    system_identifier bigint      NOT NULL,
    timeline          text        NOT NULL,
    database_oid      bigint      NOT NULL,
    stamp             bigint      NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT log_state_pkey PRIMARY KEY (only_row),
    CONSTRAINT log_state_one_row CHECK (only_row),
    CONSTRAINT log_state_epoch_range CHECK (epoch BETWEEN 1 AND 262143),
    CONSTRAINT log_state_floor_range CHECK (floor >= 0)
);
COMMENT ON TABLE log_state IS 'One row: the epoch of the event log, the lowest version a reader may start from, and the fingerprint of the database that wrote it.';
COMMENT ON COLUMN log_state.only_row IS 'Always true: there is one row.';
COMMENT ON COLUMN log_state.epoch IS 'Counted up when the database turns out to be a copy of the one that wrote this row. The upper 18 bits of every version.';
COMMENT ON COLUMN log_state.floor IS 'Lowest version a reader may start from. Raised by a new epoch, and by retention before it drops a partition.';
COMMENT ON COLUMN log_state.system_identifier IS 'Fingerprint: pg_control_system().system_identifier of the cluster.';
COMMENT ON COLUMN log_state.timeline IS 'Fingerprint: the WAL timeline, eight hexadecimal digits. Another one after a promotion.';
COMMENT ON COLUMN log_state.database_oid IS 'Fingerprint: the oid of the database.';
COMMENT ON COLUMN log_state.stamp IS 'Fingerprint: the 32-bit xid that wrote this row. Equals the row''s own xmin unless the row was copied.';
COMMENT ON COLUMN log_state.updated_at IS 'When this row was last written.';

INSERT INTO log_state (epoch, floor, system_identifier, timeline, database_oid, stamp)
SELECT 1,
       1::bigint << 44,
       (SELECT system_identifier FROM pg_control_system()),
       left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
       pg_current_xact_id()::text::bigint & 4294967295;

-- VOLATILE and plpgsql on purpose: it must read the row as it is when it is called. Reading it takes a lock on the table
-- until the transaction ends, so log_bump() waits for every writer.
CREATE FUNCTION log_rv() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    state log_state%ROWTYPE;
BEGIN
    SELECT * INTO STRICT state FROM log_state;
    IF state.timeline <> left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) THEN
        RAISE EXCEPTION 'the event log belongs to timeline %, this server writes another one: log_bump() is due', state.timeline
            USING ERRCODE = 'ML001';
    END IF;
    RETURN state.epoch << 44 | pg_current_xact_id()::text::bigint;
END
$$;
COMMENT ON FUNCTION log_rv() IS 'The version of this transaction: epoch << 44 | xid. Call it once, in a statement of its own, after the locks are held; never inside a savepoint. Raises ML001 when the log belongs to another timeline.';

CREATE FUNCTION log_is_foreign() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    foreign_ boolean;
BEGIN
    SELECT s.system_identifier <> (SELECT c.system_identifier FROM pg_control_system() c)
           OR s.timeline <> left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
           OR s.database_oid <> (SELECT d.oid::bigint FROM pg_database d WHERE d.datname = current_database())
           OR s.stamp <> s.xmin::text::bigint
           OR s.epoch << 44 | pg_snapshot_xmax(pg_current_snapshot())::text::bigint
              <= coalesce((SELECT e.rv FROM events e ORDER BY e.rv DESC, e.seq DESC LIMIT 1), 0)
      INTO STRICT foreign_
      FROM log_state s;
    RETURN foreign_;
END
$$;
COMMENT ON FUNCTION log_is_foreign() IS 'Whether this database is a copy, a restore or a promotion of the one that last wrote log_state: the fingerprint differs, or a logged version lies in the future.';

CREATE FUNCTION log_bump(forced boolean) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    new_epoch bigint;
BEGIN
    IF NOT forced AND NOT log_is_foreign() THEN
        RETURN NULL;
    END IF;
    LOCK TABLE log_state IN ACCESS EXCLUSIVE MODE;
    IF NOT forced AND NOT log_is_foreign() THEN
        RETURN NULL;
    END IF;
    UPDATE log_state
       SET epoch = epoch + 1,
           floor = (epoch + 1) << 44,
           system_identifier = (SELECT c.system_identifier FROM pg_control_system() c),
           timeline = left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
           database_oid = (SELECT d.oid::bigint FROM pg_database d WHERE d.datname = current_database()),
           stamp = pg_current_xact_id()::text::bigint & 4294967295,
           updated_at = now()
    RETURNING epoch INTO STRICT new_epoch;
    RETURN new_epoch;
END
$$;
COMMENT ON FUNCTION log_bump(boolean) IS 'Begins a new epoch when the database is foreign (or when forced) and returns it; NULL when nothing was to be done. Idempotent; any replica may call it. Waits for every writer.';
