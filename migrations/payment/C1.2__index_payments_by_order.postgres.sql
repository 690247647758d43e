-- An index that was begun concurrently and not finished is there, but of no use.
SELECT indexrelid FROM pg_index WHERE indexrelid = 'payments_by_order'::regclass AND NOT indisvalid;
