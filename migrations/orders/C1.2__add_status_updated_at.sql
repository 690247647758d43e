-- No order was left out.
SELECT id FROM orders WHERE status_updated_at IS NULL;
-- No status is older than its order: today's date in old orders would be a lie, an older one too.
SELECT id FROM orders WHERE status_updated_at < created_at;
