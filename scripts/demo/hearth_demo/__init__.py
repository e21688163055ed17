"""Training of hearth's built-in pair of demo models: data, models, training, export, evaluation."""
