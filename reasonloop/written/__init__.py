"""What a run has written, by digest, so that what was lost, exchanged, cut or changed since is known: RUN/digests.jsonl.

A line has the digests that files are to have from then on, and is on the disk before they are. So whenever a process was
killed, or the power was cut, each file is what the lines say; those of the last line may still be what they were before it.

Runs of earlier versions have no such file: nothing is said of theirs.
"""
