"""What ``print`` says of modules."""

import qiskit_qattn as qa


def test_a_model_says_its_heads_circuits_and_backends():
    config = qa.GPTConfig(n_layer=1, n_head=2, n_embd=8, heads="qisa:1,classical:1", num_qubits=2)
    printed = str(qa.GPT(config).to_backend("statevector?shots=10&seed=1"))
    assert "qisa-v3:1,classical:1" in printed
    assert "num_qubits=2" in printed and "statevector?seed=1&shots=10" in printed
