"""Amazon Braket: local simulators and devices."""
