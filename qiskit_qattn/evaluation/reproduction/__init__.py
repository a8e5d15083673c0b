"""Published claims about quantum attention, run again."""
