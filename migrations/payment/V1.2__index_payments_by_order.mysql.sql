ALTER TABLE payments ADD INDEX payments_by_order (order_id), ALGORITHM = INPLACE, LOCK = NONE;
