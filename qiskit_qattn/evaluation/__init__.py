"""What a trained model is worth: causality, figures, and how its text differs from a baseline's."""
