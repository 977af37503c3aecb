-- How soon PostgreSQL looks again at how a table is filled: after 2 % of it has changed, and not after 10 %. Of a namespace that its
-- statistics do not know it thinks that it has one row, and reads all that it has for each that is asked for: a new one of very many
-- chats would wait for that until a tenth of all chats had changed.

ALTER TABLE agents SET (autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE snapshots SET (autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE blobs SET (autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE chats SET (autovacuum_analyze_scale_factor = 0.02);
