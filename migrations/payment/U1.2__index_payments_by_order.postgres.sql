-- grey: no-transaction
DROP INDEX CONCURRENTLY IF EXISTS payments_by_order;
