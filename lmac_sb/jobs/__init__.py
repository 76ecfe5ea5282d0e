"""Work on many items in chunks, by as many processes as there are.

`job` gives the chunks out and says which are done, `rows` keeps what is found
as tables, `shards` what is to be heard, and `processes` says which process
this one is.

Imports `utils` and `data`.

**One more kind of work** is a function that gets a range of items and returns
a `Chunk` of rows, and of files if there are some; and an identity, which says
what of it would make other rows. `torchrun` then starts it as often as wanted.

>>> from lmac_sb.jobs.job import Chunk, Job
>>> def lengths(items):
...     return Chunk([{"id": str(i), "samples": len(wavs[i])} for i in items])
>>> job = Job(getfixture("tmp_path"), len(wavs), {"what": "lengths"})
>>> job.run(lengths)
>>> job.frame().samples.tolist()
[16000, 16000]
"""
