-- What projects hold and may hold, and the rules over their tags; labels.

-- `used`: bytes of the project's manifests and of its blobs, each blob once. Kept by the triggers below and nothing else.
ALTER TABLE projects ADD COLUMN quota INTEGER;
ALTER TABLE projects ADD COLUMN used INTEGER NOT NULL DEFAULT 0;

-- In how many repositories of a project a blob is.
CREATE TABLE project_blobs (
    project INTEGER NOT NULL,
    blob INTEGER NOT NULL,
    links INTEGER NOT NULL,
    PRIMARY KEY (project, blob)
) WITHOUT ROWID;
INSERT INTO project_blobs (project, blob, links)
    SELECT r.project, l.blob, count(*) FROM blob_links l JOIN repositories r ON r.id = l.repository GROUP BY 1, 2;
UPDATE projects SET used =
    (SELECT coalesce(sum(b.size), 0) FROM project_blobs x JOIN blobs b ON b.id = x.blob WHERE x.project = projects.id)
    + (SELECT coalesce(sum(m.size), 0) FROM manifests m JOIN repositories r ON r.id = m.repository
        WHERE r.project = projects.id);

CREATE TRIGGER blob_is_linked AFTER INSERT ON blob_links BEGIN
    UPDATE projects SET used = used + (SELECT size FROM blobs WHERE id = NEW.blob)
    WHERE id = (SELECT project FROM repositories WHERE id = NEW.repository)
        AND NOT EXISTS (SELECT 1 FROM project_blobs x WHERE x.project = projects.id AND x.blob = NEW.blob);
    INSERT INTO project_blobs (project, blob, links)
        SELECT project, NEW.blob, 1 FROM repositories WHERE id = NEW.repository
        ON CONFLICT (project, blob) DO UPDATE SET links = links + 1;
END;
CREATE TRIGGER blob_is_unlinked AFTER DELETE ON blob_links BEGIN
    UPDATE project_blobs SET links = links - 1
    WHERE project = (SELECT project FROM repositories WHERE id = OLD.repository) AND blob = OLD.blob;
    UPDATE projects SET used = used - (SELECT size FROM blobs WHERE id = OLD.blob)
    WHERE id = (SELECT project FROM repositories WHERE id = OLD.repository)
        AND EXISTS (SELECT 1 FROM project_blobs x
            WHERE x.project = projects.id AND x.blob = OLD.blob AND x.links = 0);
    DELETE FROM project_blobs
    WHERE project = (SELECT project FROM repositories WHERE id = OLD.repository) AND blob = OLD.blob AND links = 0;
END;
CREATE TRIGGER manifest_is_kept AFTER INSERT ON manifests BEGIN
    UPDATE projects SET used = used + NEW.size
    WHERE id = (SELECT project FROM repositories WHERE id = NEW.repository);
END;
CREATE TRIGGER manifest_is_removed AFTER DELETE ON manifests BEGIN
    UPDATE projects SET used = used - OLD.size
    WHERE id = (SELECT project FROM repositories WHERE id = OLD.repository);
END;

-- Patterns have * and ?; those of repositories are without the project.
CREATE TABLE immutable_rules (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    repositories TEXT NOT NULL,
    tags TEXT NOT NULL
);
CREATE INDEX immutable_rules_of_project ON immutable_rules (project);
CREATE TABLE retention_rules (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    repositories TEXT NOT NULL,
    tags TEXT NOT NULL,
    keep_latest INTEGER,
    keep_days INTEGER
);
CREATE INDEX retention_rules_of_project ON retention_rules (project);

CREATE TABLE labels (
    id INTEGER PRIMARY KEY,
    project INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    color TEXT NOT NULL,
    UNIQUE (project, name)
);
CREATE TABLE manifest_labels (
    manifest INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,
    label INTEGER NOT NULL REFERENCES labels (id) ON DELETE CASCADE,
    PRIMARY KEY (manifest, label)
) WITHOUT ROWID;
CREATE INDEX manifest_labels_of_label ON manifest_labels (label);
