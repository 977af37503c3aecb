-- Retention of events: the floor is raised in a transaction of its own, before the partition of a day is dropped.

CREATE FUNCTION log_raise_floor(above bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    state   log_state%ROWTYPE;
    mine    bigint;
    horizon bigint;
BEGIN
    SELECT * INTO STRICT state FROM log_state FOR UPDATE;
    IF state.floor > above THEN
        RETURN true;
    END IF;
    -- The floor is a version that lists may have: everything up to it must have ended. Only this transaction may still be open,
    -- which appends no event.
    mine := log_rv();
    horizon := state.epoch << 44 | pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
    IF above + 1 > horizon OR (above + 1 = horizon AND horizon <> mine) THEN
        RETURN false;
    END IF;
    UPDATE log_state
       SET floor = above + 1,
           stamp = pg_current_xact_id()::text::bigint & 4294967295,
           updated_at = now();
    RETURN true;
END
$$;
COMMENT ON FUNCTION log_raise_floor(bigint) IS 'Makes every version up to and with the given one too old to start from; false while a transaction up to there, or just above, is open: ask again later. Commit it before what it is about is dropped.';

CREATE FUNCTION events_drop_day(day date) RETURNS boolean LANGUAGE plpgsql VOLATILE SET lock_timeout = '200ms' AS $$
DECLARE
    part text := 'events_' || to_char(day, 'YYYYMMDD');
    last bigint;
BEGIN
    IF to_regclass(part) IS NULL THEN
        RETURN false;
    END IF;
    -- Whoever waits for this lock has every reader and writer of the log wait behind it: not for long.
    LOCK TABLE ONLY events IN ACCESS EXCLUSIVE MODE;
    IF to_regclass(part) IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', part);
    EXECUTE format('SELECT e.rv FROM %I e ORDER BY e.rv DESC, e.seq DESC LIMIT 1', part) INTO last;
    IF last >= (SELECT s.floor FROM log_state s) THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I', part);
    RETURN true;
END
$$;
COMMENT ON FUNCTION events_drop_day(date) IS 'Drops the partition of a day (UTC) if all its events are below the floor. False: there is none, or something was written to it since the floor was raised. Fails with 55P03 when the log is too busy to be locked within 200 ms.';
