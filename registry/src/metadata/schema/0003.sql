-- What was done, by whom, to what, from where, with which result. Rows are added; none is changed, and only those that
-- are older than the floor go.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    user TEXT NOT NULL,
    via TEXT NOT NULL,
    source TEXT NOT NULL,
    project TEXT,
    repository TEXT,
    operation TEXT NOT NULL,
    target TEXT,
    status INTEGER NOT NULL,
    detail TEXT
);
CREATE INDEX audit_by_time ON audit (time);
CREATE INDEX audit_of_project ON audit (project, id);
CREATE INDEX audit_of_user ON audit (user, id);

-- Rows from before this time may be removed.
CREATE TABLE audit_floor (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    time INTEGER NOT NULL
);
INSERT INTO audit_floor (one, time) VALUES (1, 0);

CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit log is never changed');
END;
CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit
WHEN OLD.time >= (SELECT time FROM audit_floor) BEGIN
    SELECT RAISE(ABORT, 'the audit log keeps this row');
END;
CREATE TRIGGER audit_floor_only_rises BEFORE UPDATE ON audit_floor
WHEN NEW.time < OLD.time OR NEW.time > CAST(unixepoch('subsec') * 1000 AS INTEGER) - 86400000 BEGIN
    SELECT RAISE(ABORT, 'the audit log keeps at least one day');
END;
CREATE TRIGGER audit_floor_stays BEFORE DELETE ON audit_floor BEGIN
    SELECT RAISE(ABORT, 'the audit log has a floor');
END;
