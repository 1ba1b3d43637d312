"""What is found in a user's program: its layers, and the places where they are used.

To read in this order. `layers`: which parameters stand in a matrix together; `infer` guesses that
from names and shapes. `statistics`: what is gathered at a layer, of the `patches` of images if it
is a convolution. `taps`: a layer whose backward pass returns them; `tapped`: what a model with taps
is asked for, and one whose author put them there. `capture` puts them into any other model:
`programs` traces and runs it, `origins` follows parameters through it, `recognition` knows a layer
where a parameter meets data, `biases` what is added to it, `sites` plans the taps and `insertion`
runs the program with them.
"""
