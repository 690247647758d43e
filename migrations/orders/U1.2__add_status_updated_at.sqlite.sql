DROP TRIGGER orders_status_updated_at;
ALTER TABLE orders DROP COLUMN status_updated_at;
