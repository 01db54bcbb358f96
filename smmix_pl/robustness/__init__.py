"""Images made harder: patches dropped or shuffled, attacks, corruptions. Plain torch."""
