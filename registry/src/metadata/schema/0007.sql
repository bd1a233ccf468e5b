-- Who is told what happens in a project. `secret` signs what is sent, so it is kept as it is.
CREATE TABLE webhooks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX webhooks_of_project ON webhooks (project);

-- What is still to be told. `next`: when it is tried, milliseconds since 1970.
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook INTEGER NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next INTEGER NOT NULL
);
CREATE INDEX deliveries_by_time ON deliveries (next);
CREATE INDEX deliveries_of_webhook ON deliveries (webhook);
