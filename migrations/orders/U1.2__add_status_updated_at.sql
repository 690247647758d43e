ALTER TABLE orders DROP COLUMN status_updated_at;
