"""Jobs on queued, perhaps paid devices: written down before they are sent, never lost, never sent twice."""
