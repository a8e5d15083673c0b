"""IBM Quantum through Qiskit Runtime."""
