"""Pure functions of the method: no I/O, no globals, jit- and vmap-able."""
