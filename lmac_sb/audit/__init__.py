"""What a classifier listens to, over a whole corpus.

`describe` and `evidence` look at one clip; `classes`, `groups`, `confusions`,
`alarms` and `columns` at the table of all; `run` does it all in order.
"""
