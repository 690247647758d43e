-- grey: no-transaction
CREATE INDEX CONCURRENTLY payments_by_order ON payments (order_id);
