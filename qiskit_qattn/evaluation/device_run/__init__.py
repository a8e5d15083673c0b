"""One generation on a device, compared with the exact engine token by token."""
