-- What the hosts sign tokens with, and know each other by. The one with the greatest id is in use.
CREATE TABLE cluster_secrets (
    key_id smallint PRIMARY KEY CHECK (key_id BETWEEN 1 AND 255),
    secret bytea NOT NULL CHECK (length(secret) >= 32),
    create_time timestamptz NOT NULL DEFAULT now()
);
