"""Power of a mill drive from load and speed: linear, three coefficients, one array."""
