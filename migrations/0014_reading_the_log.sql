-- The tail of the log reads it in one round trip; it did so in three. The horizon is a statement of its own, kept in a variable and bound
-- to the statement of the rows, and the floor is one after them. Under READ COMMITTED each statement of a VOLATILE function has a
-- snapshot of its own, so this is what three statements are, in the order that docs/event-log.md wants.
-- What it returns cannot be changed: whoever wants more columns makes a function of another name, and replicas of before go on.

CREATE FUNCTION log_read(after_rv bigint, after_seq integer, rows_max bigint, bytes_max bigint)
RETURNS TABLE (horizon bigint, floor bigint, is_whole boolean, namespace text, rv bigint, seq integer, kind text, subject uuid,
               name text, chat_id uuid, chat_seq bigint, agent_id uuid, payload jsonb, created_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    complete_below bigint;
    row_count      bigint := 0;
    bytes          bigint := 0;
    whole          boolean := true;
BEGIN
    SELECT s.epoch << 44 | pg_snapshot_xmin(pg_current_snapshot())::text::bigint INTO STRICT complete_below FROM log_state s;
    FOR namespace, rv, seq, kind, subject, name, chat_id, chat_seq, agent_id, payload, created_at IN
        SELECT e.namespace, e.rv, e.seq, e.kind, e.subject, e.name, e.chat_id, e.chat_seq, e.agent_id, e.payload, e.created_at
        FROM events e
        WHERE (e.rv, e.seq) > (after_rv, after_seq) AND e.rv < complete_below
        ORDER BY e.rv, e.seq LIMIT rows_max
    LOOP
        RETURN NEXT;
        row_count := row_count + 1;
        -- What is compressed where it lies is larger when it is read.
        bytes := bytes + CASE WHEN pg_column_compression(payload) IS NULL THEN pg_column_size(payload) ELSE octet_length(payload::text) END;
        IF bytes >= bytes_max THEN
            whole := false;
            EXIT;
        END IF;
    END LOOP;
    SELECT complete_below, s.floor, whole AND row_count < rows_max, '', 0, 0, '', NULL, '', NULL, NULL, NULL, 'null', now()
      INTO STRICT horizon, floor, is_whole, namespace, rv, seq, kind, subject, name, chat_id, chat_seq, agent_id, payload, created_at
      FROM log_state s;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION log_read(bigint, integer, bigint, bigint) IS 'Events after a place in the log and below the horizon, in order: about as many as there is room for. The last row is no event: it has the horizon, from before the rows, the floor, from after them, and whether nothing more is below the horizon.';
