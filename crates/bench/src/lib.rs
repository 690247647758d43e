//! Load generator and yardsticks: one JSON line per measurement.
