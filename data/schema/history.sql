PRAGMA application_id = 1097429832;
PRAGMA user_version = 1;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    type INTEGER NOT NULL CHECK (type BETWEEN 0 AND 3),
    time_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    value REAL,
    event_id TEXT,
    request_id TEXT,
    session_id TEXT
);
CREATE INDEX events_by_user ON events (user_id, id DESC);
CREATE UNIQUE INDEX events_once ON events (user_id, event_id) WHERE event_id IS NOT NULL;
