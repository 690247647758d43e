-- grey: no-transaction

ALTER TABLE orders ADD COLUMN status_updated_at TEXT;
-- SQLite gives an existing column no default, so a trigger does what the default does elsewhere.
CREATE TRIGGER orders_status_updated_at AFTER INSERT ON orders WHEN NEW.status_updated_at IS NULL
BEGIN
    UPDATE orders SET status_updated_at = CURRENT_TIMESTAMP WHERE id = NEW.id;
END;
-- grey: backfill table=orders key=id batch=1000 pause=10ms
UPDATE orders SET status_updated_at = created_at WHERE id BETWEEN :low AND :high AND status_updated_at IS NULL;
