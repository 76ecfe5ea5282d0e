"""Work on many items in chunks, by as many processes as there are.

`job` gives the chunks out and says which are done, `rows` keeps what is found
as tables, `shards` what is to be heard, and `processes` says which process
this one is.
"""
