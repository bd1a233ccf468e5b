-- Rows of users and projects that are gone are not used again: what somewhere still names one must not mean another.
CREATE TABLE last_rows (
    kind TEXT PRIMARY KEY,
    row INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO last_rows (kind, row) VALUES
    ('project', (SELECT coalesce(max(id), 0) FROM projects)),
    ('user', (SELECT coalesce(max(id), 0) FROM users));

-- `count`: how often it happened in its minute. `project_row`: which project of that name it was.
DROP TRIGGER audit_is_never_changed;
ALTER TABLE audit ADD COLUMN count INTEGER NOT NULL DEFAULT 1;
ALTER TABLE audit ADD COLUMN project_row INTEGER;
UPDATE audit SET project_row = (SELECT id FROM projects p WHERE p.name = audit.project AND p.created <= audit.time);
DROP INDEX audit_of_project;
CREATE INDEX audit_of_project ON audit (project_row, id);
CREATE INDEX audit_of_project_name ON audit (project, id);
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit log is never changed');
END;
