"""Qiskit Aer."""
