"""Networks that report an angle: readouts, losses, training in stages, recording."""
