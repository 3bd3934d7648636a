"""The HTML report of a run: one file that needs no network, written again while the run goes on where that is asked for."""
