-- A lap keeps what it began with: the tokens and the generation that it will have handled when it ends. An agent that
-- changes faster than its laps end would else never have any of them handled.

ALTER TABLE agents
    ADD COLUMN fanout_refresh    text,
    ADD COLUMN fanout_reconcile  text,
    ADD COLUMN fanout_generation bigint;
COMMENT ON COLUMN agents.fanout_refresh IS 'Converge: the refresh token that the running lap copies and will have handled.';
COMMENT ON COLUMN agents.fanout_reconcile IS 'Converge: the reconcile token that the running lap will have handled.';
COMMENT ON COLUMN agents.fanout_generation IS 'Converge: the generation that the running lap began with.';

-- Making a partition takes ACCESS EXCLUSIVE on the log. Behind a pg_dump it would queue, and every writer and reader of the
-- log behind it: rather not now, and again at the next look.
ALTER FUNCTION events_make_ahead(integer) SET lock_timeout = '200ms';
