-- The limits that a namespace has of its own, by name. Hosts read those that have any every few seconds.
ALTER TABLE namespaces ADD COLUMN limits jsonb NOT NULL DEFAULT '{}';
CREATE INDEX namespaces_limits ON namespaces (namespace_id) WHERE limits <> '{}';
