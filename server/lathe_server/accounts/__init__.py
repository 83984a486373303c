"""What serving costs, and whose it is: CPU time, money, energy, carbon."""
