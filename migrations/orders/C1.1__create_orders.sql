-- An order has a customer.
SELECT id FROM orders WHERE customer = '';
