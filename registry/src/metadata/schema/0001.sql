-- Times are milliseconds since 1970, sizes are bytes, digests are text (ALGORITHM:HEX).

CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE projects (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    public INTEGER NOT NULL,
    created INTEGER NOT NULL
);

-- The whole name (PROJECT/NAME) is kept: it is what everything is looked up by.
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    project INTEGER NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL
);
CREATE INDEX repositories_of_project ON repositories (project, name);

-- What the store holds. `key` names the object there; it is new for every upload, so that a blob that is pushed again
-- while its earlier copy is collected is another object.
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    key TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL
);

-- Which repository may read which blob. `touched`: when a client last said that it wants it there.
CREATE TABLE blob_links (
    repository INTEGER NOT NULL REFERENCES repositories (id),
    blob INTEGER NOT NULL REFERENCES blobs (id),
    touched INTEGER NOT NULL,
    PRIMARY KEY (repository, blob)
) WITHOUT ROWID;
CREATE INDEX blob_links_of_blob ON blob_links (blob);

CREATE TABLE manifests (
    id INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL REFERENCES repositories (id),
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    subject TEXT,
    artifact_type TEXT,
    annotations TEXT,
    touched INTEGER NOT NULL,
    UNIQUE (repository, digest)
);
CREATE INDEX manifests_of_subject ON manifests (repository, subject, id) WHERE subject IS NOT NULL;

-- Apart, so that walking over manifests does not read them.
CREATE TABLE manifest_bodies (
    manifest INTEGER PRIMARY KEY REFERENCES manifests (id) ON DELETE CASCADE,
    body BLOB NOT NULL
);

-- The foreign keys are the last guard: a blob or manifest that another manifest needs cannot go.
CREATE TABLE manifest_blobs (
    manifest INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,
    repository INTEGER NOT NULL,
    blob INTEGER NOT NULL,
    PRIMARY KEY (manifest, blob),
    FOREIGN KEY (repository, blob) REFERENCES blob_links (repository, blob)
) WITHOUT ROWID;
CREATE INDEX manifest_blobs_of_link ON manifest_blobs (repository, blob);

CREATE TABLE manifest_children (
    manifest INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,
    child INTEGER NOT NULL REFERENCES manifests (id),
    PRIMARY KEY (manifest, child)
) WITHOUT ROWID;
CREATE INDEX manifest_children_of_child ON manifest_children (child);

CREATE TABLE tags (
    repository INTEGER NOT NULL REFERENCES repositories (id),
    name TEXT NOT NULL,
    manifest INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,
    updated INTEGER NOT NULL,
    PRIMARY KEY (repository, name)
) WITHOUT ROWID;
CREATE INDEX tags_of_manifest ON tags (manifest);

-- `received` bytes of the staged file are on the disk, and `state` is the hash over exactly these.
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    received INTEGER NOT NULL,
    state BLOB NOT NULL,
    touched INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX uploads_by_touched ON uploads (touched);

-- Objects of the store that no blob names any more, or (`writing`) not yet.
CREATE TABLE trash (
    key TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    writing INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    password TEXT NOT NULL,
    administrator INTEGER NOT NULL,
    created INTEGER NOT NULL
);
