"""The accelerated network against the plain one, and the benchmark's own output."""
