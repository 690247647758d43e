-- Without a default, so that orders that exist have NULL and can be told from new ones.
ALTER TABLE orders ADD COLUMN status_updated_at TIMESTAMP NULL, ALGORITHM = INSTANT;
-- From here on, for new orders only.
ALTER TABLE orders MODIFY COLUMN status_updated_at TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP, ALGORITHM = INPLACE, LOCK = NONE;
-- grey: backfill table=orders key=id batch=1000 pause=10ms
UPDATE orders SET status_updated_at = created_at WHERE id BETWEEN :low AND :high AND status_updated_at IS NULL;
