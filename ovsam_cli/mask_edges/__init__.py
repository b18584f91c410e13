"""Where masks change along their pixels, found in low-resolution logits without full-size masks.

Both resizes of spec section 4.3 are linear along an axis and separable, so a line of cells is a
piecewise linear function of the pixel. Its sign changes have a closed form: first along each row of
cells (`axes`, `transitions`), then, only where two neighboring rows differ in sign, down the column
of pixels between them. What is computed is about one number for each change of the result.

`transitions` is the NumPy form, `compiled` the same steps for Numba, `counts` turns what they find
into COCO strings, areas and boxes.
"""
