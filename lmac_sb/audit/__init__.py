"""What a classifier listens to, over a whole corpus.

`describe` and `evidence` look at one clip, and `rows` makes a row of each;
`classes`, `groups`, `confusions`, `alarms` and `columns` look at the table of
all; `results` puts together what they find, and `run` does it all in order.

Imports `inference` and all before it.

**One more test** is a function from the table of clips to a list of `Alarm`,
one for each test, whatever its outcome, which `find_results` calls: all tests
are corrected for their number together.

>>> import pandas
>>> from lmac_sb.audit.alarm import Alarm
>>> def unsure(frame):
...     for name, clips in frame.groupby("decision"):
...         share, n = float((clips["p"] < 0.5).mean()), len(clips)
...         effect = (share, share, share)
...         yield Alarm("mine", name, "", effect, "clips", 1.0, n, "", ())
>>> frame = pandas.DataFrame({"decision": ["cat", "cat"], "p": [0.2, 0.9]})
>>> [test.effect[0] for test in unsure(frame)]
[0.5]
"""
