-- Who may do what: members with roles, robots, keys of the tokens, and sign-ins that are renewed.

-- `generation` counts what ends tokens: a new password, a user who was disabled.
ALTER TABLE users ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

-- `role`: 1 viewer, 2 developer, 3 DevOps administrator.
CREATE TABLE members (
    project INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role INTEGER NOT NULL,
    added INTEGER NOT NULL,
    PRIMARY KEY (project, user)
) WITHOUT ROWID;
CREATE INDEX members_of_user ON members (user);

-- `secret` is the SHA-256 of a secret of 256 random bits. `actions`: names with commas between.
CREATE TABLE robots (
    id INTEGER PRIMARY KEY,
    project INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    secret BLOB NOT NULL,
    actions TEXT NOT NULL,
    expires INTEGER NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    UNIQUE (project, name)
);

-- Keys that sign tokens. The youngest one signs; a retired one is good for the tokens that it signed.
CREATE TABLE token_keys (
    id TEXT PRIMARY KEY,
    secret BLOB NOT NULL,
    created INTEGER NOT NULL,
    retired INTEGER
) WITHOUT ROWID;

-- Refresh tokens, by their SHA-256.
CREATE TABLE refresh_tokens (
    hash BLOB PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX refresh_tokens_of_user ON refresh_tokens (user, created);
