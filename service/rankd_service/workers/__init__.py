"""Several serving processes behind one address: planned, started, watched, replaced, ended together."""
