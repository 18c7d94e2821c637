"""What is right in the exercises of each chapter."""
