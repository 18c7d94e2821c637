"""What every part needs and no chapter teaches: checks, files, memory, devices, processes."""
