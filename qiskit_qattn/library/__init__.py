"""What is computed: attention circuits, their encodings, ansatzes and observables. Qiskit only, no torch."""
