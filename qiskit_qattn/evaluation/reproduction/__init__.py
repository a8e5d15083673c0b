"""Published claims about quantum attention, run again: one file a claim."""
