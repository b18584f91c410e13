"""`transitions` and `counts` as loops that Numba compiles, with the same results; optional.

Importing takes about a second, compiling 17 core seconds once a machine (Numba keeps the result).
No step holds the GIL. Import it through `encoding` only. Each file is compiled on its own, because
Numba notices changes of the file alone that it has compiled.
"""
