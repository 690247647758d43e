SELECT id FROM payments WHERE amount_cents < 0;
